package kmsv2

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText is how much of a plugin's text is repeated, in bytes. Those that pass on what
// their provider said come to the point late: Azure's plugin after 200 bytes.
const maxText = 400

// quote returns the beginning of a plugin's text in quotes, without what cannot be
// printed.
func quote(text string) string {
	var b strings.Builder
	for _, c := range text {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			continue
		}
		if b.Len()+utf8.RuneLen(c) > maxText {
			b.WriteString("...")
			break
		}
		b.WriteRune(c)
	}
	return strconv.Quote(b.String())
}

// telling is how many bytes of what a plugin was given make a repetition: a multiple
// of three, so that their Base64 begins that of all. Fewer can be in a text by chance.
const telling = 9

// repeats reports whether a text holds the beginning of given, in one of the forms in
// which programs print bytes. What it makes of given it wipes.
func repeats(text string, given []byte) bool {
	if len(given) < telling {
		return false
	}
	part, in := given[:telling], []byte(text)
	found := false
	for _, form := range [][]byte{
		bytes.Clone(part),
		beginning(bytes.Map(func(c rune) rune { return c }, given), 3*telling), // as UTF-8: a bad byte is three then
		beginning(fmt.Appendf(nil, "%q", given)[1:], 2*telling),
		hex.AppendEncode(nil, part),
		fmt.Appendf(nil, "%X", part),
		base64.StdEncoding.AppendEncode(nil, part),
		base64.URLEncoding.AppendEncode(nil, part),
		numbers(part, "%d", " "),
		numbers(part, "%d", ", "),
		numbers(part, "%#x", ", "),
	} {
		found = found || bytes.Contains(in, form)
		clear(form[:cap(form)])
	}
	return found
}

// beginning returns at most n bytes of b.
func beginning(b []byte, n int) []byte { return b[:min(n, len(b))] }

// numbers prints bytes one by one.
func numbers(b []byte, format, between string) []byte {
	var out []byte
	for i, c := range b {
		if i > 0 {
			out = append(out, between...)
		}
		out = fmt.Appendf(out, format, c)
	}
	return out
}
