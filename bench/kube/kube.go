// Package kube measures what encryption costs at the level of Kubernetes: a kube-apiserver alone, one with KMS v2 (kube-apiserver's own encryption, with a
// plugin process that has a local key), and one that speaks to etcd through etcdseal (with a local KEK).
//
// Each of these sides has a kube-apiserver and an etcd of its own, from the same binaries and with the same flags. They take turns in rounds of changing
// order, and ratios are taken within a round. What is not on turn is frozen (SIGSTOP): an idle kube-apiserver keeps asking etcd for this and that, its garbage
// collector may still be at work for the calls before, and on few cores those that wait would disturb the one that is measured. A side that was frozen for
// long has timers to catch up with and connections to prove alive, so that each round begins with a wait until every side is ready and quiet, and with calls
// that are not counted; within the round it is frozen for fractions of a second only.
//
// All TCP connections have TLS with client certificates, as in a cluster. The KMS v2 plugin and etcdseal each have a unix socket, since both run beside
// kube-apiserver; so each side has one leg with TLS, the one to etcd. A fourth side, for calls alone, has TLS between kube-apiserver and etcdseal, too.
//
// The watch cache is on, as it is in a cluster, so that a write is also read back by a watch. Gets and lists are made so that they are answered from etcd,
// and it is checked by etcd's own counters that they were.
package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/bench/report"
)

// Config says what to measure and with what. Every field but Progress is required.
type Config struct {
	// APIServer, Etcd, Etcdseal and Plugin are the binaries. Plugin is package bench/kube/kmsplugin's.
	APIServer, Etcd, Etcdseal, Plugin string
	// Dir is an empty directory for data, keys and logs. Its path must be short, for the name of a unix socket. It is the caller's to remove.
	Dir string
	// Calls says whether calls are measured, in Rounds rounds of Turn for each kind of call and side, after one round that does not count.
	Calls  bool
	Rounds int
	Turn   time.Duration
	// Cold is the number of secrets that are there when kube-apiservers are started to see how long that takes, Starts times for each side. Zero
	// leaves that out.
	Cold, Starts int
	// Progress gets a line now and then. Nil discards them.
	Progress io.Writer
}

// The names of the sides in a report.
const (
	SideAlone = "kube-apiserver"
	SideKMS   = "with KMS v2"
	SideSeal  = "through etcdseal"
	SideTLS   = "through etcdseal, TLS" // has no part in what is measured beside calls
)

// Run measures and leaves no process behind. Of the machine the report has nothing but the version of Kubernetes. With an error it returns
// the report of what was measured before, or nil.
func Run(ctx context.Context, cfg Config) (rep *report.Report, err error) {
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	st := &stage{cfg: cfg}
	defer func() { err = errors.Join(err, st.close()) }()
	if err := st.start(ctx); err != nil {
		return nil, err
	}
	rep = &report.Report{}
	if rep.Machine.Versions, err = versions(ctx, cfg.APIServer); err != nil {
		return nil, err
	}
	if cfg.Calls {
		if err := measureCalls(ctx, st, rep); err != nil {
			return rep, err
		}
	}
	if err := st.end(SideTLS); err != nil {
		return rep, err
	}
	if err := measureStored(ctx, st, rep); err != nil {
		return rep, err
	}
	if cfg.Cold > 0 {
		if err := measureCold(ctx, st, rep); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// versions asks kube-apiserver for its version, which is "Kubernetes v1.2.3".
func versions(ctx context.Context, apiServer string) ([]report.Version, error) {
	out, err := exec.CommandContext(ctx, apiServer, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("asking kube-apiserver for its version: %w", err)
	}
	name, version, ok := strings.Cut(strings.TrimSpace(string(out)), " v")
	if !ok {
		return nil, errors.New("asking kube-apiserver for its version: the answer is not understood")
	}
	return []report.Version{{Name: name, Version: version}}, nil
}
