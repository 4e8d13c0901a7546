package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/RUNBOOK.md anew")

// The table is between these lines of the document.
const (
	tableBegin = "<!-- made by go test . -run TestRunbook -update, in e2e -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// TestRunbook compares docs/RUNBOOK.md's table with what TestKeyMatrix expects. Run it
// with -update to write the table.
func TestRunbook(t *testing.T) {
	file := filepath.Join("..", "docs", "RUNBOOK.md")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(data), tableBegin)
	got, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", file)
	}
	want := matrixTable(t)
	if *update {
		if err := os.WriteFile(file, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want {
		t.Errorf("%s is out of date: run go test . -run TestRunbook -update", file)
	}
}

// matrixTable has a line for every kind and fault, and demands that there is such a cell.
func matrixTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| KEK | fault | blocks start-up? | calls while running | calls after a start during the fault | loses data? | what to do |\n|---|---|---|---|---|---|---|\n")
	cells := map[string]cell{}
	for _, c := range matrix {
		cells[c.kind+c.fault] = c
	}
	for _, fault := range matrixFaults {
		for _, kind := range matrixKinds {
			c, known := cells[kind+fault]
			if !known {
				t.Errorf("nothing is said of %s, %s", kind, fault)
			}
			if c.absent != "" {
				fmt.Fprintf(&b, "| %s | %s | no such case: %s | | | | |\n", kind, fault, c.absent)
				continue
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | no | %s |\n", kind, fault, c.blocks(), c.running, c.afterStart(), advice[fault])
		}
	}
	return b.String()
}

func (c cell) blocks() string {
	switch {
	case c.refuses:
		return "yes: it ends with an error"
	case c.started.write == "" || c.started.ready:
		return "no"
	}
	return "it starts; `/readyz` is 503 until the KEK is back"
}

func (c cell) afterStart() string {
	if c.refuses {
		return "none: it does not start"
	}
	return c.started.String()
}

// String is the table's text; a case without a fault that calls notice has no answers.
func (a answers) String() string {
	if a.write == "" || a == seen(well, a.class) {
		return "all answered"
	}
	return fmt.Sprintf("create, update: %s; get: %s; list: %s", a.write, a.read, a.list)
}
