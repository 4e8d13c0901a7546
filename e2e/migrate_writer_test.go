package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/poll"
)

const (
	// busySecrets is how many secrets a migrateWriter works on.
	busySecrets = 40
	// busyLimit bounds the calls of a step that begins while something is away.
	busyLimit = 5 * time.Second
)

// migrateWriter creates, updates, deletes and reads secrets of its own, one after the
// other, without a pause, and knows what was acknowledged. A write that failed while
// something was interrupted may have been carried out or not: its secret is left alone
// until the interruption is over, and may then be either.
type migrateWriter struct {
	lab         *lab
	api         *apiserver.Client
	interrupted atomic.Int64 // odd while something is
	stop        context.CancelFunc
	ended       chan error
	random      *rand.Rand

	mu      sync.Mutex // guards what follows
	secrets map[string]*busySecret
	writes  int // acknowledged
	unknown int // of unknown outcome
	lost    int // calls that failed during an interruption
	raced   int // updates refused since the version had changed
	reads   int
}

// busySecret is what a secret may be: what was acknowledged last, and what was written
// since without an answer. nil stands for absent.
type busySecret struct {
	may [][]byte
}

func newMigrateWriter(t *testing.T, l *lab, api *apiserver.Client) *migrateWriter {
	t.Helper()
	if _, err := api.Create(call(t), apiserver.Namespaces, apiserver.NewNamespace(migrated)); err != nil {
		t.Fatalf("creating namespace: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &migrateWriter{
		lab: l, api: api, random: rand.New(rand.NewPCG(1, 2)), stop: stop, ended: make(chan error, 1), secrets: make(map[string]*busySecret),
	}
	for n := range busySecrets {
		w.secrets[fmt.Sprintf("busy-%02d", n)] = &busySecret{may: [][]byte{nil}}
	}
	go func() {
		w.ended <- poll.Do(context.Background(), func(context.Context) error {
			for ctx.Err() == nil {
				idle, err := w.step()
				if err != nil {
					return poll.Permanent{Err: err}
				}
				if idle {
					return errIdle
				}
			}
			return nil
		})
	}()
	t.Cleanup(stop)
	return w
}

// errIdle says that nothing can be done at the moment.
var errIdle = errors.New("waiting for the end of an interruption")

// step works on one secret. It is idle if that may still be written by an earlier step.
func (w *migrateWriter) step() (idle bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := fmt.Sprintf("busy-%02d", w.random.IntN(busySecrets))
	secret := w.secrets[name]
	began := w.interrupted.Load()
	if began%2 == 1 && len(secret.may) > 1 {
		return true, nil
	}
	limit := 2 * callLimit // a read and a write, which have to succeed
	if began%2 == 1 {
		limit = busyLimit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err = w.change(ctx, name, secret)
	var wrong *migrateMismatch
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &wrong), began%2 == 0 && w.interrupted.Load() == began:
		return false, err
	}
	w.lost++
	return false, nil
}

// migrateMismatch says that a secret is not what it may be.
type migrateMismatch struct{ text string }

func (e *migrateMismatch) Error() string { return e.text }

// change reads a secret, compares it with what it may be, and writes it.
func (w *migrateWriter) change(ctx context.Context, name string, secret *busySecret) error {
	path := apiserver.Secrets(migrated)
	is, version, err := w.read(ctx, name)
	if err != nil {
		return err
	}
	if !secret.is(is) {
		return &migrateMismatch{fmt.Sprintf("%s is not what was acknowledged (there: %t, known: %t)", name, is != nil, len(secret.may) == 1)}
	}
	secret.may = [][]byte{is} // with no write under way that could change it again
	next := fmt.Appendf(nil, "%s %s %d", w.lab.marker, name, w.random.Uint64())
	object := apiserver.NewSecret(migrated, name, next)
	object.Metadata.ResourceVersion = version
	switch {
	case is == nil:
		_, err = w.api.Create(ctx, path, object)
	case w.random.IntN(5) == 0:
		next = nil
		err = w.api.Delete(ctx, path, name)
	default:
		_, err = w.api.Update(ctx, path, object)
	}
	var refused *apiserver.StatusError
	switch {
	case err == nil:
		w.writes++
		secret.may = [][]byte{next}
		return nil
	case is != nil && errors.As(err, &refused) && refused.Code == http.StatusConflict:
		w.raced++ // a migration has written it meanwhile, as any other client may
		return nil
	}
	w.unknown++
	secret.may = append(secret.may, next)
	return fmt.Errorf("writing %s: %w", name, err)
}

func (s *busySecret) is(value []byte) bool {
	return slices.ContainsFunc(s.may, func(may []byte) bool { return bytes.Equal(may, value) && (may == nil) == (value == nil) })
}

// read returns a secret's value, nil if it is not there, and its version.
func (w *migrateWriter) read(ctx context.Context, name string) (value []byte, version string, err error) {
	w.reads++
	got, err := w.api.Get(ctx, apiserver.Secrets(migrated), name)
	var failed *apiserver.StatusError
	if errors.As(err, &failed) && failed.Code == http.StatusNotFound {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading %s: %w", name, err)
	}
	return got.Data["value"], got.Metadata.ResourceVersion, nil
}

// interrupt does something during which calls may fail, and waits until kube-apiserver
// works again.
func (w *migrateWriter) interrupt(t *testing.T, do func()) {
	t.Helper()
	w.interrupted.Add(1)
	do()
	poll.Until(t, settleLimit, "kube-apiserver to work again", func(ctx context.Context) error {
		if err := w.api.Ready(ctx); err != nil {
			return err
		}
		_, err := w.api.Get(ctx, apiserver.Secrets(migrated), probe)
		return err
	})
	w.interrupted.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("interrupted: so far %d writes were acknowledged, %d are of unknown outcome, %d calls failed", w.writes, w.unknown, w.lost)
}

// waitLost waits until a call has failed. An interruption that is short need not make any
// fail: kube-apiserver reads once more before it gives up.
func (w *migrateWriter) waitLost(t *testing.T) {
	t.Helper()
	poll.Until(t, settleLimit, "a call of the writer to fail", func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		return atLeast(w.lost, 1)
	})
}

// finish ends the writer and compares everything that it wrote.
func (w *migrateWriter) finish(t *testing.T) {
	t.Helper()
	w.stop()
	if err := <-w.ended; err != nil {
		t.Fatalf("after %d writes: %v", w.writes, err)
	}
	for name, secret := range w.secrets {
		is, _, err := w.read(call(t), name)
		if err != nil || !secret.is(is) {
			t.Errorf("%s is not what was acknowledged, %v", name, err)
		}
		secret.may = [][]byte{is}
	}
	if w.writes == 0 || w.lost == 0 {
		t.Errorf("%d writes and %d failed calls: nothing was tested", w.writes, w.lost)
	}
	t.Logf("the writer: %d reads, %d writes acknowledged, %d of unknown outcome, %d calls failed while something was away, %d updates met a newer version",
		w.reads, w.writes, w.unknown, w.lost, w.raced)
}

// there returns how many of the secrets are there, after finish.
func (w *migrateWriter) there() int {
	n := 0
	for _, secret := range w.secrets {
		if secret.may[0] != nil {
			n++
		}
	}
	return n
}
