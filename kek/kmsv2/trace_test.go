package kmsv2

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// TestTrace covers what is told of a call: the UID is the one that the plugin's own
// log has.
func TestTrace(t *testing.T) {
	l := newLab(t)
	var trace kek.Trace
	ctx := kek.WithTrace(t.Context(), &trace)
	want := func(what, code string, tries int) {
		t.Helper()
		if len(trace.ClientRequestID) != 36 {
			t.Errorf("%s: the UID is %q", what, trace.ClientRequestID)
		}
		got := trace
		got.ClientRequestID = ""
		if diff := cmp.Diff(kek.Trace{KeyID: "key-1", Code: code, Tries: tries}, got); diff != "" {
			t.Errorf("%s: the trace differs (-want +got):\n%s", what, diff)
		}
	}
	w, err := l.kek.Wrap(ctx, bytes.Repeat([]byte{1}, kek.DEKSize))
	if err != nil {
		t.Fatal(err)
	}
	want("Wrap", "OK", 1)
	if _, err := l.kek.Unwrap(ctx, w); err != nil {
		t.Fatal(err)
	}
	want("Unwrap", "OK", 1)
	l.Hook(kmstest.Hooks{Decrypt: func(context.Context, *service.DecryptRequest, *[]byte) error {
		return status.Error(codes.PermissionDenied, "no")
	}})
	if _, err := l.kek.Unwrap(ctx, w); err == nil {
		t.Fatal("Unwrap succeeded")
	}
	want("a denied Unwrap", "PermissionDenied", 1)
}
