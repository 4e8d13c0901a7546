package kube

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// pageSize is the number of values of one answer when all are read from etcd.
const pageSize = 1000

// etcdReads is the number of gets and lists that etcd has answered since it began.
func (s *side) etcdReads(ctx context.Context) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.etcdMetrics+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("reading etcd's metrics: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("reading etcd's metrics: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("reading etcd's metrics: answered %s", response.Status)
	}
	reads, err := parseReads(response.Body)
	if err != nil {
		return 0, fmt.Errorf("reading etcd's metrics: %w", err)
	}
	return reads, nil
}

// parseReads sums the counters of successful Range and RangeStream calls in Prometheus's text format.
func parseReads(r io.Reader) (float64, error) {
	var sum float64
	found := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "grpc_server_handled_total{") || !strings.Contains(line, `grpc_code="OK"`) {
			continue
		}
		if !strings.Contains(line, `grpc_method="Range"`) && !strings.Contains(line, `grpc_method="RangeStream"`) {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("parsing a counter: %w", err)
		}
		sum, found = sum+n, true
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("there is no counter of Range calls")
	}
	return sum, nil
}

// compact drops etcd's history and waits until it is gone from the disk, so that no side works on a larger one than the others.
func (s *side) compact(ctx context.Context) error {
	kv := pb.NewKVClient(s.direct)
	now, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(probe.key()), KeysOnly: true})
	if err != nil {
		return fmt.Errorf("reading etcd's revision: %w", err)
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: now.Header.Revision, Physical: true}); err != nil {
		return fmt.Errorf("compacting etcd: %w", err)
	}
	return nil
}

// eachStored calls f with every key under a prefix, whose last byte is not 0xff, and the value that etcd holds.
func (s *side) eachStored(ctx context.Context, prefix string, f func(key string, value []byte) error) error {
	end := []byte(prefix)
	end[len(end)-1]++
	from, revision := []byte(prefix), int64(0)
	for {
		page, err := pb.NewKVClient(s.direct).Range(ctx, &pb.RangeRequest{Key: from, RangeEnd: end, Limit: pageSize, Revision: revision})
		if err != nil {
			return fmt.Errorf("reading etcd: %w", err)
		}
		if revision == 0 {
			revision = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			if err := f(string(kv.Key), kv.Value); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
		from = append(page.Kvs[len(page.Kvs)-1].Key, 0)
	}
}
