package kmsv2

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// direct asks a plugin without a socket, so that time can be a bubble's.
type direct struct{ p *kmstest.Plugin }

// answer is what gRPC makes of an answer.
func answer[A any](ctx context.Context, a *A, err error) (*A, error) {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, status.Error(codes.DeadlineExceeded, "")
	case ctx.Err() != nil:
		return nil, status.Error(codes.Canceled, "")
	case err != nil:
		return nil, status.Convert(err).Err()
	}
	return a, nil
}

func (d direct) Status(ctx context.Context, _ *kmsapi.StatusRequest, _ ...grpc.CallOption) (*kmsapi.StatusResponse, error) {
	s, err := d.p.Status(ctx)
	if s == nil {
		s = &service.StatusResponse{}
	}
	return answer(ctx, &kmsapi.StatusResponse{Version: s.Version, Healthz: s.Healthz, KeyId: s.KeyID}, err)
}

func (d direct) Encrypt(ctx context.Context, r *kmsapi.EncryptRequest, _ ...grpc.CallOption) (*kmsapi.EncryptResponse, error) {
	a, err := d.p.Encrypt(ctx, r.Uid, r.Plaintext)
	if a == nil {
		a = &service.EncryptResponse{}
	}
	return answer(ctx, &kmsapi.EncryptResponse{Ciphertext: a.Ciphertext, KeyId: a.KeyID, Annotations: a.Annotations}, err)
}

func (d direct) Decrypt(ctx context.Context, r *kmsapi.DecryptRequest, _ ...grpc.CallOption) (*kmsapi.DecryptResponse, error) {
	dek, err := d.p.Decrypt(ctx, r.Uid, &service.DecryptRequest{Ciphertext: r.Ciphertext, KeyID: r.KeyId, Annotations: r.Annotations})
	return answer(ctx, &kmsapi.DecryptResponse{Plaintext: dek}, err)
}

// bubble is a KEK of a plugin, in a bubble, with the defaults.
type bubble struct {
	*testing.T
	*kmstest.Plugin
	kek *KEK
	log *bytes.Buffer
}

func inBubble(t *testing.T, do func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, Plugin: kmstest.New("secret", "key-1"), log: &bytes.Buffer{}}
		b.kek = start(Config{Name: "plugin", Logger: slog.New(slog.NewTextHandler(b.log, nil))}, direct{b.Plugin}, nil)
		defer b.kek.Close()
		synctest.Wait()
		do(b)
	})
}

// pass lets time pass and what then happens come to its end.
func (b *bubble) pass(d time.Duration) {
	time.Sleep(d) // the bubble's time
	synctest.Wait()
}

func (b *bubble) wantVersion(when, want string) {
	b.Helper()
	if got, err := b.kek.Version(b.Context()); err != nil || got != want {
		b.Errorf("%s: the version is %q, %v, want %q", when, got, err, want)
	}
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Polls come each interval, give or take a tenth, and Version asks nobody.
func TestPolls(t *testing.T) {
	inBubble(t, func(b *bubble) {
		const minutes = 1000
		var gaps []time.Duration
		last := time.Now()
		b.Hook(kmstest.Hooks{Status: func(context.Context, *service.StatusResponse) error {
			gaps = append(gaps, time.Since(last))
			last = time.Now()
			return nil
		}})
		for range minutes {
			b.pass(time.Minute)
			b.wantVersion("", "key-1")
		}
		different := map[time.Duration]bool{}
		for _, gap := range gaps {
			if gap < 54*time.Second || gap > 66*time.Second {
				b.Errorf("a poll came %s after the last one", gap)
			}
			different[gap] = true
		}
		if len(gaps) < minutes*9/10 || len(gaps) > minutes*11/10 || len(different) < 100 {
			b.Errorf("%d polls in %d minutes, %d different waits", len(gaps), minutes, len(different))
		}
	})
}

// A new key is believed at its second poll; one that was named once never is.
func TestPollsFollowTheKey(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.Rotate("key-2")
		b.wantVersion("before a poll", "key-1")
		b.pass(66 * time.Second)
		b.wantVersion("after a poll", "key-1")
		b.pass(66 * time.Second)
		b.wantVersion("after two polls", "key-2")
		if text := b.log.String(); strings.Contains(text, "level=WARN") || !strings.Contains(text, `"KMS plugin has another key" kek=plugin keyVersion=key-2 before=key-1`) {
			b.Errorf("log:\n%s", text)
		}
	})
}

// A plugin that names another key at each poll changes nothing and is warned of, a few
// times only.
func TestPollsOfAFlippingPlugin(t *testing.T) {
	inBubble(t, func(b *bubble) {
		n := 0
		b.Hook(kmstest.Hooks{Status: func(_ context.Context, s *service.StatusResponse) error {
			n++
			s.KeyID = []string{"key-2", "key-1"}[n%2]
			return nil
		}})
		for range 1000 {
			b.pass(time.Minute)
			b.wantVersion("while it flips", "key-1")
		}
		if warnings := strings.Count(b.log.String(), "does not stay with one key"); warnings < 5 || warnings > 10 {
			b.Errorf("%d warnings", warnings)
		}
	})
}

// Whoever rewraps when the version has changed does so a few times an hour at most,
// whatever the plugin does, and a wrapping is always by the version.
func TestWrapOfAFlippingPlugin(t *testing.T) {
	for _, period := range []int{1, 2, 3, 5, 10, 30} {
		inBubble(t, func(b *bubble) {
			changes, wraps, last := 0, 0, "key-1"
			const minutes = 1200
			for minute := range minutes {
				b.Rotate([]string{"key-1", "key-2"}[minute/period%2])
				b.pass(time.Minute)
				w, err := b.kek.Wrap(b.Context(), newDEK())
				version, versionErr := b.kek.Version(b.Context())
				if versionErr != nil {
					b.Fatal(versionErr)
				}
				if err == nil {
					wraps++
					if w.Version != version {
						b.Errorf("minute %d: wrapped by %s, the version is %s", minute, w.Version, version)
					}
				} else {
					wantClass(b.T, "Wrap", err, kek.Unavailable, "changed")
				}
				if version != last {
					changes, last = changes+1, version
				}
			}
			if changes > minutes/rest+6 || wraps == 0 {
				b.Errorf("a flip each %d minutes: the version changed %d times, %d wraps", period, changes, wraps)
			}
		})
	}
}

// The key id of Encrypt must be the status's. One that both name is believed.
func TestWrapByAnotherKeyID(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.Hook(kmstest.Hooks{Encrypt: func(_ context.Context, a *service.EncryptResponse) error { a.KeyID = "key-9"; return nil }})
		_, err := b.kek.Wrap(b.Context(), newDEK())
		wantClass(b.T, "Encrypt alone has another key", err, kek.Unavailable, `encrypts by key id "key-9"`, `names "key-1"`)
		b.wantVersion("after that", "key-1")

		b.Hook(kmstest.Hooks{})
		b.Rotate("key-2")
		w, err := b.kek.Wrap(b.Context(), newDEK())
		if err != nil || w.Version != "key-2" {
			b.Errorf("after a rotation: %v, %v", w, err)
		}
		b.wantVersion("after that", "key-2")
	})
}

// A sick plugin is polled each 10 seconds, its state is logged when it changes, and
// Unwrap asks it all the same.
func TestPollsOfASickPlugin(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w, err := b.kek.Wrap(b.Context(), newDEK())
		if err != nil {
			b.Fatal(err)
		}
		b.Hook(kmstest.Hooks{Status: func(_ context.Context, s *service.StatusResponse) error { s.Healthz = "vault sealed"; return nil }})
		b.pass(66 * time.Second)
		before := b.Calls("Status")
		b.pass(10 * time.Minute)
		if polls := b.Calls("Status") - before; polls < 54 || polls > 67 {
			b.Errorf("%d polls in ten minutes", polls)
		}
		_, err = b.kek.Version(b.Context())
		wantClass(b.T, "Version", err, kek.Unavailable, "vault sealed")
		if _, err := b.kek.Unwrap(b.Context(), w); err != nil {
			b.Errorf("Unwrap: %v", err)
		}
		b.Hook(kmstest.Hooks{})
		b.wantVersion("well again", "key-1")
		b.pass(2 * time.Minute)
		if text := b.log.String(); strings.Count(text, "KMS plugin fails") != 1 || strings.Count(text, "well again") != 1 {
			b.Errorf("log:\n%s", text)
		}
	})
}

// A plugin that hangs costs two timeouts and the wait between, and no more than three
// in all.
func TestDeadlines(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w, err := b.kek.Wrap(b.Context(), newDEK())
		if err != nil {
			b.Fatal(err)
		}
		b.Hook(kmstest.Hooks{
			Status:  func(ctx context.Context, _ *service.StatusResponse) error { return hang(ctx) },
			Encrypt: func(ctx context.Context, _ *service.EncryptResponse) error { return hang(ctx) },
			Decrypt: func(ctx context.Context, _ *service.DecryptRequest, _ *[]byte) error { return hang(ctx) },
		})
		for _, tt := range []struct {
			op, method string
			call       func() error
			tries      int
		}{
			{"Wrap", "Encrypt", func() error { _, err := b.kek.Wrap(b.Context(), newDEK()); return err }, 2},
			{"Unwrap", "Decrypt", func() error { _, err := b.kek.Unwrap(b.Context(), w); return err }, 2},
		} {
			began, before := time.Now(), b.Calls(tt.method)
			wantClass(b.T, tt.op, tt.call(), kek.Unavailable, "in time")
			if got, want := time.Since(began), 2*DefaultTimeout+retryWait; got != want {
				b.Errorf("%s took %s, want %s", tt.op, got, want)
			}
			if tries := b.Calls(tt.method) - before; tries != tt.tries {
				b.Errorf("%s: %d tries, want %d", tt.op, tries, tt.tries)
			}
		}
		b.pass(2 * time.Minute) // the poll hangs as well
		began := time.Now()
		_, err = b.kek.Wrap(b.Context(), newDEK())
		wantClass(b.T, "Wrap without a status", err, kek.Unavailable, "in time")
		if took := time.Since(began); took > tries*DefaultTimeout {
			b.Errorf("Wrap without a status took %s", took)
		}
	})
}

// Whatever mixture of slowness, nothing takes longer than three timeouts in all.
func TestDeadlineInAll(t *testing.T) {
	inBubble(t, func(b *bubble) {
		calls := 0
		slow := func(ctx context.Context) error {
			calls++
			if calls == 2 { // of Encrypt: the first one hangs, the second one is slow
				time.Sleep(DefaultTimeout - time.Millisecond)
				return nil
			}
			return hang(ctx)
		}
		b.Hook(kmstest.Hooks{
			Status: func(ctx context.Context, _ *service.StatusResponse) error { return hang(ctx) },
			Encrypt: func(ctx context.Context, a *service.EncryptResponse) error {
				a.KeyID = "key-2" // so that the status is asked as well
				return slow(ctx)
			},
		})
		began := time.Now()
		_, err := b.kek.Wrap(b.Context(), newDEK())
		wantClass(b.T, "Wrap", err, kek.Unavailable)
		if got, want := time.Since(began), tries*DefaultTimeout; got != want || !errors.Is(err, context.DeadlineExceeded) {
			b.Errorf("Wrap took %s, %v, want %s", got, err, want)
		}
	})
}

// Many that need a status at once ask for it once.
func TestStatusIsAskedOnce(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.Hook(kmstest.Hooks{Status: func(context.Context, *service.StatusResponse) error { return status.Error(codes.Unavailable, "away") }})
		b.pass(66 * time.Second)
		release := make(chan struct{})
		b.Hook(kmstest.Hooks{Status: func(context.Context, *service.StatusResponse) error { <-release; return nil }})
		before := b.Calls("Status")
		results := make(chan error, 20)
		for range cap(results) {
			go func() {
				_, err := b.kek.Version(b.Context())
				results <- err
			}()
		}
		synctest.Wait()
		close(release)
		for range cap(results) {
			if err := <-results; err != nil {
				b.Error(err)
			}
		}
		if asked := b.Calls("Status") - before; asked != 1 {
			b.Errorf("the status was asked %d times", asked)
		}
	})
}

// A caller that gives up while the status is asked for leaves no mark.
func TestCallersEndIsNotNoted(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.Rotate("key-2")
		b.Hook(kmstest.Hooks{Status: func(ctx context.Context, _ *service.StatusResponse) error { return hang(ctx) }})
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		_, err := b.kek.Wrap(ctx, newDEK()) // asks for the status, for key-2 is new
		wantClass(b.T, "Wrap", err, kek.Unavailable)
		if !errors.Is(err, context.DeadlineExceeded) {
			b.Errorf("%v is not the context's end", err)
		}
		b.wantVersion("after that", "key-1")
		if strings.Contains(b.log.String(), "fails") {
			b.Errorf("log:\n%s", b.log)
		}
	})
}
