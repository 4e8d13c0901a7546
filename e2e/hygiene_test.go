package e2e

import (
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/process"
)

// TestNothingLeaks sends planted plaintext through every kind of call, failing
// ones too, and looks for it and for the KEK in the log at level debug and in
// the metrics. (Every other test looks for its plaintext when it ends.)
func TestNothingLeaks(t *testing.T) {
	l := newLab(t, true)
	cfg := l.proxyConfig(t)
	key, err := os.ReadFile(cfg.KEKFile)
	if err != nil {
		t.Fatalf("reading KEK: %v", err)
	}
	for _, word := range strings.Fields(string(key)) {
		if raw, err := hex.DecodeString(word); err == nil && len(raw) >= 16 {
			cfg.Forbidden = append(cfg.Forbidden, string(raw))
		}
	}
	if len(cfg.Forbidden) < 2 {
		t.Fatal("the KEK file has no hexadecimal key: this test does not know its form")
	}
	cfg.Rules = append(etcdseal.DefaultRules(), etcdseal.Rule{Prefix: "/denied/", Deny: true})
	proxy := etcdseal.Start(t, cfg)
	s := newStore(t, l, proxy)
	s.put(t, "value", 3)
	s.check(t, s.client)
	plant(t, l, "/denied/plain", l.secret(t, "denied", 10))
	if _, err := s.client.Get(call(t), "/denied/plain"); err == nil {
		t.Error("reading denied plaintext succeeded")
	}
	// A request that etcd refuses, one over the limit, and a bad transaction.
	refused := string(l.secret(t, "refused", 10))
	if _, err := s.client.Put(call(t), etcdseal.SecretsPrefix+"leased", refused, clientv3.WithLease(1)); err == nil {
		t.Error("putting under an unknown lease succeeded")
	}
	if _, err := s.client.Put(call(t), etcdseal.SecretsPrefix+"huge", string(l.secret(t, "huge", 1900<<10))); err == nil {
		t.Error("putting more than etcd's limit succeeded")
	}
	twice := clientv3.OpPut(etcdseal.SecretsPrefix+"twice", refused)
	if _, err := s.client.Txn(call(t)).Then(twice, twice).Commit(); err == nil {
		t.Error("putting one key twice in a transaction succeeded")
	}
	status, text, err := proxy.Admin(call(t), "/metrics")
	if err != nil || status != http.StatusOK || !strings.Contains(text, "etcdseal_") {
		t.Errorf("/metrics answered %d without any metric of etcdseal (%v)", status, err)
	}
	if proxy.LogText(t) == "" {
		t.Error("the log is empty: nothing was searched")
	}
}

// TestNoCore makes the process crash as hard as Go can, with the limits lifted
// from outside: there must be no core file. A plain process under the same
// limits must leave one, or the test could not fail.
func TestNoCore(t *testing.T) {
	if !dumpsCore(t) {
		t.Skip("this system writes no core file for anybody")
	}
	l := newLab(t, false)
	cfg := l.proxyConfig(t)
	cfg.Env = []string{"GOTRACEBACK=crash"}
	proxy := etcdseal.Start(t, cfg)
	s := newStore(t, l, proxy)
	s.put(t, "value", 3)
	var limit unix.Rlimit
	if err := unix.Prlimit(proxy.Process().PID(), unix.RLIMIT_CORE, nil, &limit); err != nil {
		t.Fatalf("reading the limit of core files: %v", err)
	}
	if limit.Cur != 0 {
		t.Errorf("a core file may have %d bytes, want 0", limit.Cur)
	}
	if err := liftCoreLimit(proxy.Process().PID()); err != nil {
		t.Logf("the limit stays, since the test may not lift it: %v", err)
	}
	proxy.Process().Signal(t, syscall.SIGABRT)
	state := proxy.Process().Wait(t, settleLimit)
	if state.Sys().(syscall.WaitStatus).CoreDump() {
		t.Error("the kernel dumped a core of etcdseal")
	}
	if cores := coreFiles(t, proxy.Dir()); len(cores) > 0 {
		t.Errorf("core files: %v", cores)
	}
}

// dumpsCore reports whether an ordinary process leaves a core file here.
func dumpsCore(t *testing.T) bool {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return false
	}
	dir := t.TempDir()
	p := process.Start(t, process.Config{Path: sleep, Args: []string{"600"}, Dir: dir, Log: process.NewLog(t, "sleep")})
	if err := liftCoreLimit(p.PID()); err != nil {
		return false
	}
	p.Signal(t, syscall.SIGABRT)
	return p.Wait(t, settleLimit).Sys().(syscall.WaitStatus).CoreDump()
}

// liftCoreLimit lets a process dump a core of any size. Lifting what the process
// itself has forbidden takes CAP_SYS_RESOURCE.
func liftCoreLimit(pid int) error {
	return unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil)
}

func coreFiles(t *testing.T, dir string) []string {
	t.Helper()
	cores, err := filepath.Glob(filepath.Join(dir, "core*"))
	if err != nil {
		t.Fatalf("looking for core files: %v", err)
	}
	return cores
}

// TestRefusesToLog starts the proxy with the debugging switch by which Go
// prints HTTP/2 traffic, answers of a key vault included: it must not start.
func TestRefusesToLog(t *testing.T) {
	l := newLab(t, false)
	cfg := l.proxyConfig(t)
	cfg.Env = []string{"GODEBUG=http2debug=2"}
	proxy := etcdseal.New(t, cfg)
	proxy.Run(t)
	if state := proxy.Process().Wait(t, settleLimit); state.ExitCode() != 2 {
		t.Errorf("etcdseal ended with %v, want exit status 2", state)
	}
	if text := proxy.LogText(t); !strings.Contains(text, "http2debug") {
		t.Errorf("the log does not name http2debug:\n%s", text)
	}
}
