package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRows lays out an envelope whose bytes count up from 0.
func TestRows(t *testing.T) {
	const plaintext = "plain\x00text\xff of 17"
	sealed := make([]byte, 48+len(plaintext))
	for i := range sealed {
		sealed[i] = byte(i)
	}
	got := rows([]byte(plaintext), sealed)
	want := []row{
		{offset: 0, hex: "00 01 02", label: `magic "\0es"`, color: cyan},
		{offset: 3, hex: "03", label: "format version", color: cyan},
		{offset: 4, hex: "04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13", label: "DEK id", color: yellow},
		{offset: 20, hex: "14 15 16 17 18 19 1a 1b 1c 1d 1e 1f", label: "nonce", color: magenta},
		{text: "plain.text. of 1", offset: 32, hex: "20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f", label: "AES-256-GCM ciphertext", color: red},
		{text: "7", offset: 48, hex: "30", color: red},
		{offset: 49, hex: "31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e 3f 40", label: "authentication tag", color: green},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("rows differ (-want +got):\n%s", diff)
	}
}

func TestRowsFitTheirColumns(t *testing.T) {
	for _, r := range rows([]byte(secret), make([]byte, 48+len(secret))) {
		if len(r.text) > rowBytes || len(r.hex) > hexWidth || strings.ContainsAny(r.text, "\n\t") {
			t.Errorf("row is too wide: %+v", r)
		}
	}
}
