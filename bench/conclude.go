package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/etcdseal/etcdseal/bench/report"
)

// conclude delivers what a run has measured, all of it or what there was before the error, and returns the exit status. No report is nil.
func conclude(rep *report.Report, err error, o options, stdout, stderr io.Writer) int {
	code := 0
	if rep != nil {
		code = deliver(rep, o.output, o.out, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	return code
}

// removePlots removes the plots of an earlier report from its directory: a run of fewer parts would leave those of others beside its own.
func removePlots(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, plotsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for the plots of an earlier report: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Type().IsRegular() && filepath.Ext(e.Name()) == ".svg" {
			errs = append(errs, os.Remove(filepath.Join(dir, plotsDir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the plots of an earlier report: %w", err)
	}
	return nil
}
