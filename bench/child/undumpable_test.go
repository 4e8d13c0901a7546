package child

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// undumpableEnv has TestShownUndumpable be the process that is looked at; it names the file that says that it is ready.
const undumpableEnv = "BENCH_TEST_UNDUMPABLE"

// What is said to be shown is compared with what the kernel does, whoever runs the test.
func TestShownUndumpable(t *testing.T) {
	if ready := os.Getenv(undumpableEnv); ready != "" {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ready, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		<-signals
		return
	}
	ready := filepath.Join(t.TempDir(), "ready")
	p, err := Start(Config{Name: "undumpable", Path: os.Args[0], Args: []string{"-test.run=^TestShownUndumpable$"}, Env: []string{undumpableEnv + "=" + ready}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	waitFile(t, p, ready)
	got, err := ShownUndumpable()
	if err != nil {
		t.Fatal(err)
	}
	may := func(name string, flag int) bool {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", p.PID(), name), flag, 0)
		if err == nil {
			_ = f.Close()
		} else if !errors.Is(err, fs.ErrPermission) {
			t.Fatal(err)
		}
		return err == nil
	}
	if want := (Shown{PSS: may("smaps_rollup", os.O_RDONLY), Peak: may("clear_refs", os.O_WRONLY)}); got != want {
		t.Errorf("said to be shown: %+v, want %+v", got, want)
	}
}
