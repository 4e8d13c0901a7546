package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
)

// fixture is a Source over files in a directory, with a clock and a count of what was built.
type fixture struct {
	dir    string
	ca     *certstest.CA
	cfg    Config
	now    atomic.Int64
	builds atomic.Int64
	log    bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{dir: t.TempDir(), ca: certstest.NewCA(t, "test CA")}
	f.cfg.CertFile, f.cfg.KeyFile = f.issue(t, "first")
	f.cfg.CAFile = f.ca.Write(t, f.dir)
	f.cfg.Now = func() time.Time { return time.Unix(0, f.now.Load()) }
	f.cfg.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	return f
}

// issue puts a certificate with the common name in place.
func (f *fixture) issue(t *testing.T, cn string) (certFile, keyFile string) {
	return f.ca.Issue(t, certstest.Request{CommonName: cn}).Write(t, f.dir, "tls")
}

func (f *fixture) open(t *testing.T) *Source {
	t.Helper()
	s, err := Open(f.cfg, f.build)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	return s
}

func (f *fixture) build(m Material) *tls.Config {
	f.builds.Add(1)
	config := &tls.Config{RootCAs: m.Pool}
	if m.Certificate != nil {
		config.Certificates = []tls.Certificate{*m.Certificate}
	}
	return config
}

func (f *fixture) advance(d time.Duration) { f.now.Add(int64(d)) }

// name returns the common name that a configuration presents.
func name(config *tls.Config) string { return config.Certificates[0].Leaf.Subject.CommonName }

func TestConfigFollowsFilesOncePerInterval(t *testing.T) {
	f := newFixture(t)
	s := f.open(t)
	f.issue(t, "second")
	f.advance(DefaultInterval - 1)
	if got := name(s.Config()); got != "first" {
		t.Errorf("before the interval is over: got %s, want first", got)
	}
	f.advance(1)
	if got := name(s.Config()); got != "second" {
		t.Errorf("after the interval: got %s, want second", got)
	}
	f.issue(t, "third")
	if got := name(s.Config()); got != "second" {
		t.Errorf("right after a look: got %s, want second", got)
	}
	if got := s.Leaf().Subject.CommonName; got != "second" {
		t.Errorf("leaf: got %s, want second", got)
	}
}

func TestConfigBuildsNothingWhileFilesStay(t *testing.T) {
	f := newFixture(t)
	s := f.open(t)
	first := s.Config()
	for range 10 {
		f.advance(DefaultInterval)
		if s.Config() != first {
			t.Fatal("the configuration changed though no file did")
		}
	}
	if got := f.builds.Load(); got != 1 {
		t.Errorf("built %d times, want 1", got)
	}
}

func TestConfigSeesEveryKindOfChange(t *testing.T) {
	tests := map[string]func(t *testing.T, f *fixture){
		"CA": func(t *testing.T, f *fixture) { certstest.Replace(t, f.cfg.CAFile, certstest.NewCA(t, "other").PEM()) },
		"another file of the same size and time": func(t *testing.T, f *fixture) {
			info, err := os.Stat(f.cfg.CAFile)
			if err != nil {
				t.Fatal(err)
			}
			// The clock of a file system may stand still between two writes.
			certstest.Replace(t, f.cfg.CAFile, bytes.Clone(f.ca.PEM()))
			if err := os.Chtimes(f.cfg.CAFile, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
		"in place, another time": func(t *testing.T, f *fixture) {
			future := time.Now().Add(time.Hour)
			if err := os.Chtimes(f.cfg.CertFile, future, future); err != nil {
				t.Fatal(err)
			}
		},
		"in place, another size": func(t *testing.T, f *fixture) {
			info, err := os.Stat(f.cfg.CAFile)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.cfg.CAFile, append(f.ca.PEM(), certstest.NewCA(t, "other").PEM()...), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(f.cfg.CAFile, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			s := f.open(t)
			change(t, f)
			f.advance(DefaultInterval)
			s.Config()
			if got := f.builds.Load(); got != 2 {
				t.Errorf("built %d times, want 2", got)
			}
		})
	}
}

// Kubernetes mounts a secret as links through a directory link, which it swaps.
func TestConfigFollowsSwappedLink(t *testing.T) {
	f := newFixture(t)
	for _, version := range []string{"v1", "v2"} {
		dir := filepath.Join(f.dir, version)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f.ca.Issue(t, certstest.Request{CommonName: version}).Write(t, dir, "tls")
	}
	link := filepath.Join(f.dir, "data")
	if err := os.Symlink("v1", link); err != nil {
		t.Fatal(err)
	}
	f.cfg.CertFile, f.cfg.KeyFile = filepath.Join(link, "tls.crt"), filepath.Join(link, "tls.key")
	s := f.open(t)
	if err := os.Symlink("v2", link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
	f.advance(DefaultInterval)
	if got := name(s.Config()); got != "v2" {
		t.Errorf("got %s, want v2", got)
	}
}

func TestBrokenFilesKeepTheOldConfiguration(t *testing.T) {
	f := newFixture(t)
	s := f.open(t)
	half := f.ca.Issue(t, certstest.Request{CommonName: "half"})
	certstest.Replace(t, f.cfg.CertFile, half.Cert) // its key is not there yet
	for range 3 {
		f.advance(DefaultInterval)
		if got := name(s.Config()); got != "first" {
			t.Errorf("with a key that does not fit: got %s, want first", got)
		}
	}
	if err := s.Reload(); err == nil {
		t.Error("Reload accepted a key that does not fit")
	}
	if got := strings.Count(f.log.String(), "not reloaded"); got != 1 {
		t.Errorf("one failure was logged %d times, want 1:\n%s", got, f.log.String())
	}
	certstest.Replace(t, f.cfg.KeyFile, half.Key)
	f.advance(DefaultInterval)
	if got := name(s.Config()); got != "half" {
		t.Errorf("after the key came: got %s, want half", got)
	}
}

// A failure that comes back after the old files did is a new one.
func TestFailureIsLoggedAgainAfterRecovery(t *testing.T) {
	f := newFixture(t)
	s := f.open(t)
	good := f.cfg.CAFile + ".good"
	for range 2 {
		if err := os.Rename(f.cfg.CAFile, good); err != nil {
			t.Fatal(err)
		}
		f.advance(DefaultInterval)
		s.Config()
		if err := os.Rename(good, f.cfg.CAFile); err != nil {
			t.Fatal(err)
		}
		f.advance(DefaultInterval)
		s.Config()
	}
	if got := strings.Count(f.log.String(), "not reloaded"); got != 2 {
		t.Errorf("logged %d times, want 2:\n%s", got, f.log.String())
	}
}

// What is wrong with a file need not show in what stat tells.
func TestFailureIsTriedAgainThoughFilesLookTheSame(t *testing.T) {
	f := newFixture(t)
	refused := true
	f.cfg.Check = func(leaf *x509.Certificate) error {
		if refused && leaf.Subject.CommonName == "second" {
			return errors.New("not now")
		}
		return nil
	}
	s := f.open(t)
	f.issue(t, "second")
	f.advance(DefaultInterval)
	if got := name(s.Config()); got != "first" {
		t.Fatalf("refused: got %s, want first", got)
	}
	refused = false
	f.advance(DefaultInterval)
	if got := name(s.Config()); got != "second" {
		t.Errorf("accepted: got %s, want second", got)
	}
}

func TestReloadReadsAtOnce(t *testing.T) {
	f := newFixture(t)
	s := f.open(t)
	f.issue(t, "second")
	if err := s.Reload(); err != nil {
		t.Fatalf("reloading: %v", err)
	}
	if got := name(s.Config()); got != "second" {
		t.Errorf("got %s, want second", got)
	}
}

// Handshakes that run while files change get whole configurations, and one look each interval however many they are.
func TestConfigConcurrently(t *testing.T) {
	f := newFixture(t)
	s := f.open(t)
	seen := make([]map[string]bool, 8)
	for round := range 5 {
		f.issue(t, "round"+string(rune('0'+round)))
		f.advance(DefaultInterval)
		var wg sync.WaitGroup
		for i := range seen {
			wg.Go(func() {
				if seen[i] == nil {
					seen[i] = make(map[string]bool)
				}
				for range 100 {
					seen[i][name(s.Config())] = true
				}
			})
		}
		wg.Wait()
		if got, want := name(s.Config()), "round"+string(rune('0'+round)); got != want {
			t.Errorf("after round %d: got %s, want %s", round, got, want)
		}
	}
	if got, want := f.builds.Load(), int64(6); got != want {
		t.Errorf("built %d times, want %d", got, want)
	}
	if diff := cmp.Diff("", f.failures()); diff != "" {
		t.Error(diff)
	}
}

// failures returns the lines of the log that tell of failures.
func (f *fixture) failures() string {
	var lines []string
	for line := range strings.Lines(f.log.String()) {
		if strings.Contains(line, "not reloaded") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
