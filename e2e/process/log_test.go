package process

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"testing"
)

func TestHolds(t *testing.T) {
	const secret = "e2e-plaintext-0123456789"
	for _, tt := range []struct {
		name string
		text string
		want string
	}{
		{"absent", "nothing of the kind: e2e-plaintext", ""},
		{"plain", "value " + secret + " seen", "plain"},
		{"hexadecimal", hex.EncodeToString([]byte("a" + secret + "b")), "hexadecimal"},
		{"base64", base64.StdEncoding.EncodeToString([]byte(secret)), "base64"},
		{"base64 shifted by one", base64.StdEncoding.EncodeToString([]byte("a" + secret + "xyz")), "base64"},
		{"base64 shifted by two", base64.URLEncoding.EncodeToString([]byte("ab" + secret + "x")), "base64"},
		{"printed slice", fmt.Sprint([]byte("a" + secret + "b")), "list of bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Holds([]byte(tt.text), secret); got != tt.want {
				t.Errorf("Holds = %q, want %q", got, tt.want)
			}
		})
	}
}
