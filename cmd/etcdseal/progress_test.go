package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/migrate"
)

// TestProgressLines has no terminal: there is a line now and then, with rate and time left.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	p := newProgress(streams{err: &out}, true)
	p.now = func() time.Time { return clock }
	for i := range int64(26) { // a second each
		p.show(migrate.Progress{Pass: 1, Scanned: 100 * i, Total: 5000, Changed: 50 * i})
		clock = clock.Add(time.Second)
	}
	p.show(migrate.Progress{Pass: 2, Scanned: 0, Total: 5000, Changed: 1250})
	clock = clock.Add(linesEvery)
	p.show(migrate.Progress{Pass: 2, Scanned: 0, Total: 5000, Changed: 1250})
	p.end()
	want := "pass 1: 1000 of 5000 keys, 500 values written, 100 keys/s, 40s left\n" +
		"pass 1: 2000 of 5000 keys, 1000 values written, 100 keys/s, 30s left\n" +
		"pass 2: 0 of 5000 keys, 1250 values written, 0 keys/s, ? left\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestProgressBar has a terminal: a bar for each pass, with rate and time left.
func TestProgressBar(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(streams{err: &out}, true)
	p.tty = true
	for pass := 1; pass <= 2; pass++ {
		p.show(migrate.Progress{Pass: pass, Scanned: 0, Total: 200})
		p.show(migrate.Progress{Pass: pass, Scanned: 250, Total: 200}) // more were made meanwhile
	}
	p.end()
	for _, want := range []string{"pass 1", "pass 2", "(200/200", "keys/s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in %q", want, out.String())
		}
	}
}

// TestProgressOff is what machines get.
func TestProgressOff(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(streams{err: &out}, false)
	p.tty = true
	p.show(migrate.Progress{Pass: 1, Scanned: 1, Total: 2})
	p.end()
	if out.Len() > 0 {
		t.Errorf("it printed %q", out.String())
	}
}
