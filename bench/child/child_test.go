package child

import (
	"os"
	"strings"
	"testing"
)

func TestCPUClockCountsTheWorkOfAProcess(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	x := uint64(1)
	for range 20_000_000 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	after, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("CPU clock went from %s to %s over work that ended in %d, want it to grow", before, after, x)
	}
}

func TestParseFields(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Memory
		wantErr  bool
	}{
		{"kernel's form", "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:        1000 kB\nPss:         10 kB\nPss_Dirty:   3 kB\n", Memory{RSS: 1000 << 10, PSS: 10 << 10}, false},
		{"no Pss", "Rss: 1000 kB\n", Memory{RSS: 1000 << 10}, true},
		{"not a number", "Rss: x kB\nPss: 1 kB\n", Memory{}, true},
	} {
		var got Memory
		err := parseFields(strings.NewReader(c.in), map[string]*int64{"Rss": &got.RSS, "Pss": &got.PSS})
		if got != c.want || (err != nil) != c.wantErr {
			t.Errorf("%s: got %+v, %v, want %+v, error %v", c.name, got, err, c.want, c.wantErr)
		}
	}
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	p, err := Start(Config{Name: "idle", Path: "sleep", LogDir: dir, Args: []string{"3600"}})
	if err != nil {
		t.Fatal(err)
	}
	p2, err := Start(Config{Name: "false", Path: "sh", LogDir: dir, Args: []string{"-c", "echo the reason: $WHY; exit 3"}, Env: []string{"WHY=env"}})
	if err != nil {
		t.Fatal(err)
	}
	<-p2.Exited()
	if err := p2.Err(); err == nil || !strings.Contains(err.Error(), "the reason: env") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error of a failed process is %v, want its status and last output", err)
	}
	if err := p.Err(); err != nil {
		t.Errorf("error of a running process is %v, want none", err)
	}
	if _, err := p.Memory(); err != nil {
		t.Error(err)
	}
	if err := p.ResetPeak(); err != nil {
		t.Error(err)
	}
	if peak, err := p.PeakRSS(); err != nil || peak <= 0 {
		t.Errorf("peak memory is %d, %v", peak, err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if err := p.Err(); err == nil {
		t.Error("a stopped process has no error, want one")
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
}
