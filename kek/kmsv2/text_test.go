package kmsv2

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// A plugin's text is cut, stripped, and withheld if it holds what was sent.
func TestPluginTexts(t *testing.T) {
	l := newLab(t)
	w := l.wrap(t)
	for _, form := range []string{"%s", "%x", "%X", "%v", "%q", "%#v"} {
		l.Hook(kmstest.Hooks{Decrypt: func(_ context.Context, r *service.DecryptRequest, _ *[]byte) error {
			return fmt.Errorf("cannot decrypt "+form, r.Ciphertext)
		}})
		_, err := l.kek.Unwrap(t.Context(), w)
		wantClass(t, form, err, kek.Unavailable)
		if !strings.Contains(err.Error(), "withheld") {
			t.Errorf("%s: %v", form, err)
		}
	}
	l.Hook(kmstest.Hooks{Decrypt: func(context.Context, *service.DecryptRequest, *[]byte) error {
		return errors.New("a\x1b[31m\r\n\u202eb" + strings.Repeat("é", 1000))
	}})
	_, err := l.kek.Unwrap(t.Context(), w)
	want := `a[31mb` + strings.Repeat("é", 197) + `..."`
	if !strings.HasSuffix(fmt.Sprint(err), want) {
		t.Errorf("got %v, want it to end with %s", err, want)
	}
	for _, secret := range []string{string(newDEK()[:8]), fmt.Sprintf("%x", newDEK()[:8])} {
		_ = l.kek.Close() // so that nobody else writes the log
		if strings.Contains(l.log.String(), secret) {
			t.Error("the log holds the DEK")
		}
	}
}
