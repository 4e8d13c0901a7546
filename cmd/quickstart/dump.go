package main

import (
	"fmt"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// rowBytes is how many bytes a row shows, and hexWidth how wide they are in
// hexadecimal.
const (
	rowBytes = 16
	hexWidth = 3*rowBytes - 1
)

// row is one line of the show.
type row struct {
	text   string // plaintext bytes, unprintable ones as dots
	offset int    // of the first byte in the envelope
	hex    string
	label  string // on the first row of a field
	color  string
}

// field is a part of an envelope, as docs/FORMAT.md lists them.
type field struct {
	size         int
	label, color string
	plaintext    bool // it has a byte for each of the plaintext
}

// fields returns the parts of an envelope of a number of bytes.
func fields(size int) []field {
	return []field{
		{size: 3, label: `magic "\0es"`, color: cyan},
		{size: 1, label: "format version", color: cyan},
		{size: envelope.IDSize, label: "DEK id", color: yellow},
		{size: 12, label: "nonce", color: magenta},
		{size: size - envelope.Overhead, label: "AES-256-GCM ciphertext", color: red, plaintext: true},
		{size: 16, label: "authentication tag", color: green},
	}
}

// rows lays out an envelope beside its plaintext.
func rows(plaintext, sealed []byte) []row {
	var rows []row
	offset := 0
	for _, f := range fields(len(sealed)) {
		label := f.label
		for end := offset + f.size; offset < end; {
			n := min(rowBytes, end-offset)
			r := row{offset: offset, hex: fmt.Sprintf("% x", sealed[offset:offset+n]), label: label, color: f.color}
			if f.plaintext {
				r.text = printable(plaintext[:n])
				plaintext = plaintext[n:]
			}
			rows = append(rows, r)
			offset += n
			label = ""
		}
	}
	return rows
}

// printable returns bytes as text with a dot for each that cannot be shown.
func printable(b []byte) string {
	text := make([]byte, len(b))
	for i, c := range b {
		if c < ' ' || c > '~' {
			c = '.'
		}
		text[i] = c
	}
	return string(text)
}
