package kek_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
)

// However a wrapping is printed or logged, its bytes are not.
func TestWrappingHidesItsBytes(t *testing.T) {
	w := kek.Wrapping{Version: "v7", Algorithm: "RSA-OAEP-256", Ciphertext: []byte("CIPHERTEXT"), Annotations: map[string][]byte{"a": []byte("NOTE")}}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "wrapping", w)
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "wrapping", w, "pointer", &w)
	texts := map[string]string{"slog": log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		texts[verb] = fmt.Sprintf(verb, w)
		texts[verb+" of a pointer"] = fmt.Sprintf(verb, &w)
		texts[verb+" of a slice"] = fmt.Sprintf(verb, []kek.Wrapping{w})
		texts[verb+" of a struct"] = fmt.Sprintf(verb, struct{ W kek.Wrapping }{w})
	}
	for how, text := range texts {
		for _, form := range []string{"%s", "%x", "%X", "%d"} {
			secret := strings.Trim(fmt.Sprintf(form, w.Ciphertext), "[]")
			if strings.Contains(text, secret) || strings.Contains(text, "Q0lQSEVSVEVYVA") {
				t.Errorf("%s prints the wrapped bytes: %s", how, text)
			}
		}
		if !strings.Contains(text, "v7") {
			t.Errorf("%s does not name the version: %s", how, text)
		}
	}
}
