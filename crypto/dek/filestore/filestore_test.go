package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
	"github.com/etcdseal/etcdseal/crypto/dek/filestore"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

func open(t testing.TB, path string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// create stores a record, which has to succeed.
func create(t testing.TB, s dek.Store, n byte) {
	t.Helper()
	if _, err := s.Create(t.Context(), dektest.ID(n), dektest.Record(dektest.ID(n), n)); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	dektest.RunStore(t, func(t *testing.T) (a, b dek.Store) {
		path := filepath.Join(t.TempDir(), "keyring.json")
		return open(t, path), open(t, path) // two handles have two locks, as two processes have
	})
}

// TestFile compares the file with a frozen one.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	s := open(t, path)
	create(t, s, 2)
	create(t, s, 1)
	if _, err := s.Update(t.Context(), dektest.ID(2), dektest.Record(dektest.ID(2), 3), 1); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the file (-want +got):\n%s", diff)
	}
	for _, name := range []string{path, path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: got mode %v, %v, want 0600", name, info.Mode(), err)
		}
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(names) != 2 {
		t.Errorf("the directory has %q, %v, want the file and its lock alone", names, err)
	}
}

func TestRefusedFiles(t *testing.T) {
	good, err := os.ReadFile("testdata/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	file := string(good)
	tests := []struct {
		name, data string
		mode       os.FileMode
		ok         bool
	}{
		{"good", file, 0o600, true},
		{"read-only", file, 0o400, true},
		{"white space", strings.ReplaceAll(file, `,"revision"`, ` , "revision"`), 0o600, true},
		{"group may read", file, 0o640, false},
		{"others may write", file, 0o602, false},
		{"empty", "", 0o600, false},
		{"truncated", file[:len(file)/2], 0o600, false},
		{"something follows", file + "{}", 0o600, false},
		{"another version", strings.Replace(file, `"version":1`, `"version":2`, 1), 0o600, false},
		{"another spelling of an id", strings.Replace(file, `"dd000000000000000000000000000001"`, `"DD000000000000000000000000000001"`, 1), 0o600, false},
		{"unknown member", strings.Replace(file, `"version":1`, `"version":1,"more":1`, 1), 0o600, false},
		{"no records", `{"version":1,"revision":0}`, 0o600, false},
		{"revision past the file's", strings.Replace(file, `"revision":2`, `"revision":9`, 1), 0o600, false},
		{"entry without a record", `{"version":1,"revision":1,"records":{"dd000000000000000000000000000001":{"revision":1}}}`, 0o600, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyring.json")
			if err := os.WriteFile(path, []byte(tt.data), tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil { // whatever the umask
				t.Fatal(err)
			}
			if _, err := filestore.Open(path); (err == nil) != tt.ok {
				t.Errorf("Open: got %v, want an error: %v", err, !tt.ok)
			}
		})
	}
	if _, err := filestore.Open(t.TempDir()); err == nil {
		t.Error("Open of a directory: no error")
	}
	if _, err := filestore.Open(filepath.Join(t.TempDir(), "none", "keyring.json")); err == nil {
		t.Error("Open in a directory that does not exist: no error")
	}
}

// TestBadFileIsLeftAlone damages the file under a store.
func TestBadFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	s := open(t, path)
	create(t, s, 1)
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errGet := s.Get(t.Context(), dektest.ID(1))
	_, errCreate := s.Create(t.Context(), dektest.ID(2), dektest.Record(dektest.ID(2), 2))
	errWatch := s.Watch(t.Context(), nil, func(dek.Change) { t.Error("Watch has something to tell") })
	for _, err := range []error{errGet, errCreate, errWatch} {
		if err == nil || errors.Is(err, dek.ErrNotFound) {
			t.Errorf("got %v, want an error that says that the file cannot be read", err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "damaged" {
		t.Errorf("the file: got %q, %v, want it left alone", data, err)
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	s := open(t, path)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	waits := &doneIsAsked{Context: t.Context(), asked: make(chan struct{}), done: make(chan struct{})}
	ended := make(chan error)
	go func() {
		_, err := s.Create(waits, dektest.ID(1), dektest.Record(dektest.ID(1), 1))
		ended <- err
	}()
	<-waits.asked // it has found the lock taken
	close(waits.done)
	if err := <-ended; !errors.Is(err, dek.ErrStoreUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Create while another process writes: got %v, want ErrStoreUnavailable", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	create(t, s, 1)
}

// doneIsAsked is a context that says when somebody waits for it, and ends when done is
// closed.
type doneIsAsked struct {
	context.Context
	asked, done chan struct{}
	once        bool
}

func (c *doneIsAsked) Done() <-chan struct{} {
	if !c.once {
		c.once = true
		close(c.asked)
	}
	return c.done
}

func (c *doneIsAsked) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// TestOldOrNew reads all the while that another handle writes.
func TestOldOrNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	a, b := open(t, path), open(t, path)
	done := make(chan error)
	go func() {
		for n := range byte(50) {
			if _, err := a.Create(t.Context(), dektest.ID(n), dektest.Record(dektest.ID(n), n)); err != nil {
				done <- fmt.Errorf("Create: %w", err)
				return
			}
		}
		done <- nil
	}()
	seen := 0
	for seen < 50 {
		whole, err := b.List(t.Context())
		if err != nil {
			t.Fatalf("List while another writes: %v", err)
		}
		if len(whole.Records) < seen {
			t.Fatalf("List went back from %d to %d records", seen, len(whole.Records))
		}
		seen = len(whole.Records)
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			done = nil
		default:
		}
	}
}

// TestManagers has two processes use one file.
func TestManagers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	fake := kektest.NewFake("main", "1")
	manager := func() *dek.Manager {
		m, err := dek.New(dek.Config{Store: open(t, path), Keyring: "test", KEKs: map[string]kek.KEK{"main": fake}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		return m
	}
	a, b := manager(), manager()
	s, err := a.Sealer("main", nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.OpenKey(t.Context(), key.ID()); err != nil {
		t.Errorf("OpenKey in the other process: %v", err)
	}
	if keys := a.ActiveRecords(); keys != nil {
		t.Errorf("ActiveRecords: got %q, want nil", keys)
	}
}
