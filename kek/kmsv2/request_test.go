package kmsv2

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// Each request has a UID of its own, in the form of a UUID.
func TestUIDs(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	for range 3 {
		if _, err := l.kek.Unwrap(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for _, uid := range l.UIDs() {
		if seen[uid] || len(uid) != 36 || uid[14] != '4' || strings.Count(uid, "-") != 4 {
			t.Errorf("UID %q, seen before: %v", uid, seen[uid])
		}
		seen[uid] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d UIDs, want 4", len(seen))
	}
}

func TestClasses(t *testing.T) {
	for code := codes.OK + 1; code <= codes.Unauthenticated; code++ {
		wrap, unwrap := kek.Unavailable, kek.Unavailable
		switch code {
		case codes.PermissionDenied:
			wrap, unwrap = kek.Denied, kek.Denied
		case codes.FailedPrecondition:
			wrap, unwrap = kek.Disabled, kek.Disabled
		case codes.NotFound:
			wrap, unwrap = kek.NotFound, kek.NotFound
		case codes.ResourceExhausted:
			wrap, unwrap = kek.Throttled, kek.Throttled
		case codes.InvalidArgument, codes.OutOfRange, codes.DataLoss:
			unwrap = kek.Corrupt
		}
		t.Run(code.String(), func(t *testing.T) {
			l := newLab(t)
			w := l.wrap(t)
			said := status.Error(code, "said so")
			l.Hook(kmstest.Hooks{
				Encrypt: func(context.Context, *service.EncryptResponse) error { return said },
				Decrypt: func(context.Context, *service.DecryptRequest, *[]byte) error { return said },
			})
			wraps, unwraps := l.Calls("Encrypt"), l.Calls("Decrypt")
			_, err := l.kek.Wrap(t.Context(), newDEK())
			wantClass(t, "Wrap", err, wrap)
			_, err = l.kek.Unwrap(t.Context(), w)
			wantClass(t, "Unwrap", err, unwrap)
			want := 1
			switch code {
			case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
				want = 2
			}
			if wraps, unwraps = l.Calls("Encrypt")-wraps, l.Calls("Decrypt")-unwraps; wraps != want || unwraps != want {
				t.Errorf("%d and %d tries, want %d", wraps, unwraps, want)
			}
		})
	}
}

// A request that the plugin's end cuts off is made once more, with another UID.
func TestCrashDuringRequest(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	entered := make(chan struct{})
	l.Hook(kmstest.Hooks{Decrypt: func(ctx context.Context, _ *service.DecryptRequest, _ *[]byte) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}})
	result := make(chan error, 1)
	go func() {
		_, err := l.kek.Unwrap(t.Context(), w)
		result <- err
	}()
	<-entered
	l.Hook(kmstest.Hooks{})
	l.stop()
	serve(t, l.Plugin, l.socket)
	if err := <-result; err != nil {
		t.Error(err)
	}
	if uids := l.UIDs(); len(uids) != 3 || uids[1] == uids[2] {
		t.Errorf("UIDs %q", uids)
	}
}

// A caller's own context ends its call and says nothing of the plugin.
func TestCancelDuringRequest(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.Hook(kmstest.Hooks{Decrypt: func(ctx context.Context, _ *service.DecryptRequest, _ *[]byte) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}})
	_, err := l.kek.Unwrap(ctx, w)
	wantClass(t, "Unwrap", err, kek.Unavailable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not %v", err, context.Canceled)
	}
}
