package kmsv2

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/util"

	"github.com/etcdseal/etcdseal/kek"
)

// FuzzParseEndpoint: an endpoint that is taken means the same to kube-apiserver.
func FuzzParseEndpoint(f *testing.F) {
	for _, endpoint := range []string{
		"unix:///run/kms.sock", "unix:///@name", "unix:///@", "unix:///", "unix://", "", "unix://host/x", "unix:/x", "unix:///a%20b",
		"unix:///a?b", "unix:///a#b", "tcp://127.0.0.1:1", "unix:///a\n", "unix:///" + strings.Repeat("x", 107), "UNIX:///x", "unix://@x",
		"unix:////x", "unix:///a/../b", "unix:///a:b", "unix:///[x", "unix:///a b\\",
	} {
		f.Add(endpoint)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		address, err := parseEndpoint(endpoint)
		if err != nil {
			return
		}
		theirs, err := util.ParseEndpoint(endpoint)
		if err != nil || theirs != address {
			t.Errorf("%q: %q, kube-apiserver has %q, %v", endpoint, address, theirs, err)
		}
		if len(address) > maxAddress || address[0] != '/' && address[0] != '@' {
			t.Errorf("%q: %q", endpoint, address)
		}
	})
}

func TestParseEndpoint(t *testing.T) {
	for endpoint, want := range map[string]string{
		"unix:///run/kms.sock":                "/run/kms.sock",
		"unix:///@kms":                        "@kms",
		"unix:///a b":                         "/a b",
		"unix:///" + strings.Repeat("x", 106): "/" + strings.Repeat("x", 106),
		"unix:///" + strings.Repeat("x", 107): "",
		"unix:///@":                           "",
		"unix:///":                            "",
		"unix://":                             "",
		"unix://@kms":                         "",
		"unix://run/kms.sock":                 "",
		"unix:///run/kms%2esock":              "",
		"unix:///run/kms.sock?x":              "",
		"unix:///run/kms.sock#x":              "",
		"unix:///run/kms\x00.sock":            "",
		"/run/kms.sock":                       "",
		"tcp://127.0.0.1:2379":                "",
		"":                                    "",
	} {
		if got, err := parseEndpoint(endpoint); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", endpoint, got, err, want)
		}
	}
}

// FuzzAnswer: whatever bytes a plugin answers with, what is taken is a wrapping that
// could be unwrapped again, within the limits.
func FuzzAnswer(f *testing.F) {
	for _, a := range []*kmsapi.EncryptResponse{
		{},
		{Ciphertext: []byte("c"), KeyId: "k"},
		{Ciphertext: make([]byte, 1024), KeyId: strings.Repeat("k", 1024), Annotations: map[string][]byte{"a.b": nil, "c.d.": []byte("x")}},
		{Ciphertext: []byte("c"), KeyId: "k", Annotations: map[string][]byte{"a": nil}},
	} {
		encoded, err := proto.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var a kmsapi.EncryptResponse
		if proto.Unmarshal(encoded, &a) != nil || checkAnswer(&a) != nil {
			return
		}
		w := kek.Wrapping{Version: a.GetKeyId(), Algorithm: Algorithm, Ciphertext: a.GetCiphertext(), Annotations: annotationsOf(&a)}
		if err := checkWrapping(w); err != nil {
			t.Errorf("%v is taken and could not be unwrapped: %v", w, err)
		}
		if n := len(w.Ciphertext); n == 0 || n > maxCiphertext || len(w.Version) == 0 || len(w.Version) > maxKeyID {
			t.Errorf("%v has %d bytes", w, n)
		}
		for name, value := range w.Annotations {
			if value == nil || !strings.Contains(name, ".") || len(name) > maxDomain+1 {
				t.Errorf("annotation %q, nil: %v", name, value == nil)
			}
		}
	})
}

// FuzzText: what is repeated of a plugin's text is short and printable, and no secret
// in any usual form is missed.
func FuzzText(f *testing.F) {
	f.Add("cannot decrypt ", []byte("123456789abc"))
	f.Add("\x1b[31m\xff\u202e", []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 255})
	f.Fuzz(func(t *testing.T, text string, secret []byte) {
		q := quote(text)
		if len(q) > 2*maxText+5 || !utf8.ValidString(q) || strings.ContainsFunc(q, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Errorf("%q", q)
		}
		if len(secret) < telling {
			return
		}
		before := bytes.Clone(secret)
		for _, form := range []string{
			string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("%q", secret), fmt.Sprint(secret), fmt.Sprintf("%#v", secret),
			base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret),
		} {
			if !repeats("x"+form+"y", secret) {
				t.Errorf("%q is missed in %q", secret, form)
			}
		}
		if !bytes.Equal(secret, before) {
			t.Error("the secret was changed")
		}
	})
}

// The rules for names of annotations are those of k8s.io/apimachinery, whose own test
// cases these are in part.
func TestIsDomain(t *testing.T) {
	for name, want := range map[string]bool{
		"a.com": true, "k8s.io": true, "dev.k8s.io": true, "dev.k8s.io.": true, "foo.example.com": true, "this.is.a.really.long.fqdn": true,
		"bbc.co.uk": true, "10.0.0.1": true, "hyphens-are-good.k8s.io": true, "01010.test.net": true, "1.2": true,
		strings.Repeat("a", 63) + ".b": true, strings.Repeat("a", 64) + ".b": false,
		strings.Repeat("a.", 126) + "b": true, strings.Repeat("a.", 126) + "b.": true, strings.Repeat("a.", 126) + "bc": false,
		".": false, "": false, "..": false, "...": false, "a": false, "a.": false, ".io": false, "Dev.k8s.io": false, ".foo.example.com": false,
		"*.example.com": false, "underscores_are_bad.k8s.io": false, "foo@bar.example.com": false, "http://foo.example.com": false,
		"a..b": false, "-a.b": false, "a-.b": false, "a.b\n": false, "a.b..": false, "é.b": false,
	} {
		if got := isDomain(name); got != want {
			t.Errorf("isDomain(%q) = %v, want %v", name, got, want)
		}
	}
}
