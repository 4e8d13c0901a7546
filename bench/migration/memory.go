package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// measureMemory seals many values, and then looks through the files that this leaves: a database whose free and live pages are full of plaintext
// and sealed values, and a log.
func measureMemory(ctx context.Context, r *rig, o options) (figures []figure, err error) {
	if _, err := r.blind(ctx, o.keys); err != nil {
		return nil, err
	}
	e, err := r.encrypt(ctx, o.keys)
	if err != nil {
		return nil, err
	}
	figures = append(figures,
		figure{what: fmt.Sprintf("encrypt of %d values", o.keys), value: float64(o.keys) / e.seconds, unit: "values/s"},
		figure{what: "its largest resident memory", value: float64(e.peak) / (1 << 20), unit: "MiB", limit: 200})
	if err := r.stopEtcd(); err != nil {
		return figures, err
	}
	bytes, read, err := readAll(r.dataDir())
	if err != nil {
		return figures, err
	}
	v, err := r.verb(ctx, 1, "verify", "--config", r.config, "--data-dir", r.dataDir(), "-o", "json")
	if err != nil {
		return figures, err
	}
	var report struct {
		Bytes int64 `json:"bytes"`
		Total int64 `json:"findingsTotal"`
	}
	if err := json.Unmarshal(v.out, &report); err != nil {
		return figures, fmt.Errorf("reading the report of verify: %w", err)
	}
	if report.Bytes != bytes {
		return figures, fmt.Errorf("reading the report of verify: %d bytes were looked at, want %d", report.Bytes, bytes)
	}
	const mb = 1e6
	return append(figures,
		figure{what: "the member's files", value: float64(bytes) / mb, unit: "MB"},
		figure{what: "reading them and doing nothing", value: float64(bytes) / mb / read.Seconds(), unit: "MB/s"},
		figure{what: fmt.Sprintf("verify --data-dir, with %d findings", report.Total), value: float64(bytes) / mb / v.seconds, unit: "MB/s", limit: 500, least: true},
		figure{what: "its largest resident memory", value: float64(v.peak) / (1 << 20), unit: "MiB"}), nil
}

// readAll reads all files below a directory, twice, and returns how long the second time took, when they are in memory if they ever are.
func readAll(dir string) (n int64, took time.Duration, err error) {
	buf := make([]byte, 1<<20)
	for range 2 {
		n = 0
		start := time.Now()
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			for {
				k, err := f.Read(buf)
				n += int64(k)
				if k == 0 || err != nil {
					return nil // the sum is compared with what verify has looked at
				}
			}
		})
		if err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", dir, err)
		}
		took = time.Since(start)
	}
	return n, took, nil
}
