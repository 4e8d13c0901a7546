package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// The colours, as parameters of SGR (ECMA-48, 8.3.117).
const (
	bold    = "1"
	dim     = "2"
	red     = "31"
	green   = "32"
	yellow  = "33"
	magenta = "35"
	cyan    = "36"
)

// screen is where the show takes place.
type screen struct {
	out     io.Writer
	colored bool
}

// isTerminal says whether a file is a terminal, or at least a device like one.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// paint gives a text a colour on screens that have any.
func (s *screen) paint(color, text string) string {
	if !s.colored || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// line prints a line without spaces at its end.
func (s *screen) line(format string, args ...any) {
	fmt.Fprintln(s.out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

func (s *screen) title(text string) { s.line("\n%s\n", s.paint(bold, text)) }

// step tells one thing that was done.
func (s *screen) step(name, what, note string) {
	s.line("  %s %s  %s  %s", s.paint(green, "✓"), s.paint(bold, pad(name, 8)), pad(what, 38), s.paint(dim, note))
}

// show prints what a client reads beside what etcd holds: every row has the bytes
// of the one that became the bytes of the other.
func (s *screen) show(read, stored []byte) {
	const rule = "─"
	s.line("\n  %s %s %s", s.paint(bold, pad("a client reads", rowBytes)), s.paint(dim, "│"), s.paint(bold, "etcd holds"))
	s.line("  %s", s.paint(dim, strings.Repeat(rule, rowBytes+1)+"┼"+strings.Repeat(rule, hexWidth+30)))
	for _, r := range rows(read, stored) {
		s.line("  %s %s %s  %s  %s", pad(r.text, rowBytes), s.paint(dim, "│"), s.paint(dim, fmt.Sprintf("%04x", r.offset)),
			s.paint(r.color, pad(r.hex, hexWidth)), s.paint(r.color, r.label))
	}
}

// advice says what can be tried now.
func (s *screen) advice(proxy, etcd, dir string, once bool) {
	if once {
		s.line("\n%s", s.paint(dim, "ONCE is set: everything is taken down again."))
		return
	}
	section := func(title string, entries ...string) {
		s.line("\n%s", s.paint(bold, title))
		for i := 0; i < len(entries); i += 2 {
			s.line("  %s  %s", s.paint(dim, pad(entries[i], 18)), entries[i+1])
		}
	}
	section("Look around with etcdctl",
		"what clients read", "etcdctl --endpoints="+proxy+" get "+secretKey,
		"what etcd holds", "etcdctl --endpoints="+etcd+" get "+secretKey,
		"the wrapped keys", "etcdctl --endpoints="+etcd+" get --prefix /etcdseal/")
	section("Point a kube-apiserver at it",
		"with everything", "kube-apiserver --etcd-servers="+proxy+" ...",
		"with secrets alone", "kube-apiserver --etcd-servers="+etcd+" --etcd-servers-overrides='/secrets#"+proxy+"' ...")
	section("Configuration, key and logs", "until Ctrl-C", dir)
}

// pad fills a text up with spaces to a width in characters.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-len([]rune(text))))
}
