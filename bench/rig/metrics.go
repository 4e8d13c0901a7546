package rig

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Metrics reads the process's /metrics.
func (s *Seal) Metrics(ctx context.Context) (map[string]float64, error) {
	status, body, err := get(ctx, s.admin+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("reading metrics: status %d", status)
	}
	m := parseMetrics(body)
	for _, name := range []string{"go_gc_duration_seconds_count", "go_memstats_heap_alloc_bytes", "go_memstats_stack_inuse_bytes"} {
		if _, ok := m[name]; !ok {
			return nil, fmt.Errorf("reading metrics: %s is missing", name)
		}
	}
	return m, nil
}

// parseMetrics keeps the metrics without labels of Prometheus's text format.
func parseMetrics(text string) map[string]float64 {
	m := make(map[string]float64)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, number, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") || strings.Contains(name, "{") {
			continue
		}
		if value, err := strconv.ParseFloat(number, 64); err == nil {
			m[name] = value
		}
	}
	return m
}
