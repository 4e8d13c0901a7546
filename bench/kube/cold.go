package kube

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/etcdseal/etcdseal/bench/child"
	"github.com/etcdseal/etcdseal/bench/report"
)

// coldSamples are one side's starts; the i-th element is of the i-th round.
type coldSamples struct {
	ready, listed []float64 // milliseconds from exec to readiness, and to the end of the first complete list
	server, all   []float64 // milliseconds of processor time until then
}

// measureCold starts every side's kube-apiserver again and again on many secrets, which its watch cache has to read before it is ready. What it reads them
// through (etcd, etcdseal, the plugin) goes on running.
func measureCold(ctx context.Context, st *stage, rep *report.Report) error {
	cold := make(map[*side]*coldSamples)
	for _, s := range st.sides {
		fmt.Fprintf(st.cfg.Progress, "creating %d secrets %s\n", st.cfg.Cold-s.secrets, s.name)
		cold[s] = &coldSamples{}
		err := st.onTurn(ctx, s, func(ctx context.Context, s *side) error {
			if err := s.fill(ctx, st.cfg.Cold); err != nil {
				return err
			}
			if _, err := s.check(ctx, st.cfg.Cold); err != nil {
				return err
			}
			return s.compact(ctx)
		})
		if err != nil {
			return fmt.Errorf("preparing cold starts: %w", err)
		}
	}
	for round := range st.cfg.Starts {
		fmt.Fprintf(st.cfg.Progress, "cold start %d of %d\n", round+1, st.cfg.Starts)
		err := st.inTurn(ctx, round, func(ctx context.Context, s *side) error { return s.coldStart(ctx, cold[s], st.cfg.Cold) })
		if err != nil {
			return fmt.Errorf("starting kube-apiserver: %w", err)
		}
	}
	for _, name := range sideNames {
		s := st.side(name)
		addCold(rep, name, st.cfg.Cold, cold[s], cold[st.side(SideAlone)])
		if err := addMemory(rep, s); err != nil {
			return err
		}
	}
	rep.Set("kube: cold starts of each side", strconv.Itoa(st.cfg.Starts))
	return nil
}

// coldStart is one start. The list is answered from the watch cache, which must hold every secret by then.
func (s *side) coldStart(ctx context.Context, into *coldSamples, secrets int) error {
	before, err := s.usage()
	if err != nil {
		return err
	}
	before.server = 0 // the next one begins with nothing
	if err := s.server.Kill(); err != nil {
		return err
	}
	s.client.close()
	begin := time.Now()
	if err := s.launchServer(); err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	ready := time.Since(begin)
	answer, err := s.client.read(ctx, call{method: http.MethodGet, path: allSecrets, query: "resourceVersion=0"})
	if err != nil {
		return err
	}
	listed := time.Since(begin)
	after, err := s.usage()
	if err != nil {
		return err
	}
	l, err := decodeList(answer)
	if err != nil {
		return err
	}
	if l.items != secrets+1 || l.more {
		return fmt.Errorf("the first list has %d secrets, want %d", l.items, secrets+1)
	}
	into.ready = append(into.ready, millis(ready))
	into.listed = append(into.listed, millis(listed))
	into.server = append(into.server, millis(after.server))
	into.all = append(into.all, millis(after.since(before).sum()))
	return nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func addCold(rep *report.Report, name string, secrets int, s, alone *coldSamples) {
	workload := fmt.Sprintf("kube cold start, %d secrets", secrets)
	rep.Add(workload, name, report.Sampled("to ready", "ms", s.ready), report.Sampled("to the first list", "ms", s.listed))
	if name != SideAlone {
		rep.Add(workload, name, report.Sampled(MetricStart, "", report.Ratios(s.listed, alone.listed)))
	}
	rep.Add(workload, name, report.Sampled("CPU", "ms", s.all), report.Sampled("kube-apiserver's", "ms", s.server))
}

// addMemory takes the memory of each process of a side, frozen as it is after its last start.
func addMemory(rep *report.Report, s *side) error {
	for _, of := range []struct {
		metric  string
		process *child.Process
	}{{"kube-apiserver", s.server}, {"etcdseal or plugin", s.between}, {"etcd", s.etcd}} {
		if of.process == nil {
			continue
		}
		memory, err := of.process.Memory()
		if err != nil {
			return err
		}
		rep.Add("kube memory after the cold start", s.name, report.Single(of.metric, "B", float64(memory.PSS)))
	}
	return nil
}
