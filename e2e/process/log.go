package process

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tailSize is how many bytes of a log a failed test shows.
const tailSize = 16 << 10

// logFolderVariable names the environment variable that holds a folder into
// which the logs of failed tests are copied whole.
const logFolderVariable = "E2E_LOGS"

// Log is the file that holds what a program printed, over all its restarts.
type Log struct {
	name string
	path string
}

// NewLog makes the log of the program called name. When t fails, the end of
// the log is shown.
func NewLog(t testing.TB, name string) *Log {
	t.Helper()
	l := &Log{name: name, path: filepath.Join(t.TempDir(), name+".log")}
	t.Cleanup(func() { l.show(t) })
	return l
}

// Text is all that was printed so far.
func (l *Log) Text(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(l.path)
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		t.Fatalf("reading log of %s: %v", l.name, err)
	}
	return string(data)
}

func (l *Log) open() (*os.File, error) {
	return os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

func (l *Log) show(t testing.TB) {
	if !t.Failed() {
		return
	}
	text := l.Text(t)
	if dir := os.Getenv(logFolderVariable); dir != "" {
		name := strings.ReplaceAll(t.Name(), "/", "_") + "_" + l.name + ".log"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Errorf("keeping log of %s: %v", l.name, err)
		}
	}
	if len(text) > tailSize {
		text = "..." + text[len(text)-tailSize:]
	}
	t.Logf("log of %s:\n%s", l.name, text)
}

// Holds reports whether text holds secret as it is or in a form in which
// programs print bytes: hexadecimal, base64 at any alignment, or Go's %v of a
// byte slice. The answer is the name of the form, or empty.
func Holds(text []byte, secret string) string {
	if bytes.Contains(text, []byte(secret)) {
		return "plain"
	}
	lower := bytes.ToLower(text)
	if bytes.Contains(lower, []byte(hex.EncodeToString([]byte(secret)))) {
		return "hexadecimal"
	}
	if list := strings.Trim(fmt.Sprint([]byte(secret)), "[]"); bytes.Contains(text, []byte(list)) {
		return "list of bytes"
	}
	for shift := range 3 {
		// Whole groups of three bytes inside the secret encode to the same
		// four characters whatever stands around them.
		inner := secret[shift:]
		inner = inner[:len(inner)/3*3]
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			if bytes.Contains(text, []byte(encoding.EncodeToString([]byte(inner)))) {
				return "base64"
			}
		}
	}
	return ""
}
