package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
)

func TestOpenRefuses(t *testing.T) {
	tests := map[string]func(t *testing.T, f *fixture){
		"certificate without key": func(_ *testing.T, f *fixture) { f.cfg.KeyFile = "" },
		"missing certificate":     func(_ *testing.T, f *fixture) { f.cfg.CertFile += ".missing" },
		"missing CA":              func(_ *testing.T, f *fixture) { f.cfg.CAFile += ".missing" },
		"empty CA":                func(t *testing.T, f *fixture) { certstest.Replace(t, f.cfg.CAFile, nil) },
		"key as CA":               func(t *testing.T, f *fixture) { f.cfg.CAFile = f.cfg.KeyFile },
		"CA cut off": func(t *testing.T, f *fixture) {
			pem := append(f.ca.PEM(), certstest.NewCA(t, "second").PEM()...)
			certstest.Replace(t, f.cfg.CAFile, pem[:len(pem)-40])
		},
		"check": func(_ *testing.T, f *fixture) {
			f.cfg.Check = func(*x509.Certificate) error { return errors.New("refused") }
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			spoil(t, f)
			if _, err := Open(f.cfg, f.build); err == nil {
				t.Error("opened")
			}
		})
	}
}

func TestOpenWithoutFiles(t *testing.T) {
	var got Material
	s, err := Open(Config{}, func(m Material) *tls.Config { got = m; return &tls.Config{} })
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	if got.Certificate != nil || got.Pool != nil || s.Leaf() != nil {
		t.Errorf("material without files: %v", got)
	}
}
