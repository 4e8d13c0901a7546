package local_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdseal/etcdseal/kek/local"
)

func TestGenerate(t *testing.T) {
	path := generate(t)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v, want a regular file with 0600", info.Mode(), err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`\Aetcdseal local kek v1\n[0-9a-f]{64}\n[0-9a-f]{16}\n\z`).Match(content) {
		t.Error("the key file is not as docs/FORMAT.md says")
	}
	other, err := os.ReadFile(generate(t))
	if err != nil || string(other) == string(content) {
		t.Errorf("two key files have the same key, %v", err)
	}
}

// The mode does not depend on the umask.
func TestGenerateUmask(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.key")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	for _, mask := range []int{0, 0o377, 0o777} {
		path := fmt.Sprintf("%s%o", path, mask)
		syscall.Umask(mask)
		err := local.Generate(path)
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("umask %#o: %v", mask, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("umask %#o: %v, %v, want the mode 0600", mask, info.Mode(), err)
		}
	}
}

// A file or a link that is there is not overwritten, nor is what a link leads to made.
func TestGenerateExclusive(t *testing.T) {
	path := generate(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := local.Generate(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Generate where a file is: %v, want %v", err, fs.ErrExist)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file that was there changed, %v", err)
	}
	dir := t.TempDir()
	link, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := local.Generate(link); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Generate where a link is: %v, want %v", err, fs.ErrExist)
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link's target was made: %v", err)
	}
	if err := local.Generate(filepath.Join(dir, "no", "such", "dir")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Generate in a directory that is not there: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestNewChecksMode(t *testing.T) {
	path := generate(t)
	for mode := range fs.FileMode(0o1000) {
		if mode&0o400 == 0 {
			continue // root can read it, others cannot
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := local.New(local.Config{KeyFile: path})
		if want := mode == 0o600 || mode == 0o400; (err == nil) != want {
			t.Errorf("mode %#o: %v, accepted: %v, want %v", mode, err, err == nil, want)
		}
		if err != nil && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %#o: %q has no hint", mode, err)
		}
	}
}

// Kubernetes mounts secrets as links; what counts is the file they lead to.
func TestNewFollowsLinks(t *testing.T) {
	path := generate(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := local.New(local.Config{KeyFile: link}); err != nil {
		t.Errorf("through a link: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := local.New(local.Config{KeyFile: link}); err == nil {
		t.Error("a file that others may read is accepted through a link")
	}
}

func TestNewRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"a directory": dir, "a named pipe": pipe, "a device": os.DevNull} {
		if _, err := local.New(local.Config{KeyFile: path}); err == nil || !strings.Contains(err.Error(), "regular file") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names it and says regular file", name, err)
		}
	}
	missing := filepath.Join(dir, "missing")
	if _, err := local.New(local.Config{KeyFile: missing}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "keyring new-kek") {
		t.Errorf("a file that is not there: %v, want %v and a hint", err, fs.ErrNotExist)
	}
}

// Only the very bytes of the format are accepted, and errors do not repeat them.
func TestNewStrict(t *testing.T) {
	path := generate(t)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good := string(content)
	lines := strings.SplitAfter(good, "\n")
	head, key, version := lines[0], lines[1], lines[2]
	bad := map[string]string{
		"empty":                    "",
		"header alone":             head,
		"no last line feed":        good[:len(good)-1],
		"a byte more":              good + "\n",
		"CRLF":                     strings.ReplaceAll(good, "\n", "\r\n"),
		"another format version":   strings.Replace(good, "v1", "v2", 1),
		"no version":               head + key,
		"another key's version":    head + key + "0123456789abcdef\n",
		"a digit of the key wrong": head + flipDigit(key) + version,
		"a digit that is none":     head + "g" + key[1:] + version,
		"upper case":               head + "A" + strings.ToUpper(key[1:]) + version,
		"byte order mark":          "\ufeff" + good,
		"spaces":                   head + " " + key[1:] + version,
		"raw key":                  "0123456789abcdef0123456789abcdef",
		"large":                    good + strings.Repeat("x", 1<<20),
	}
	for n := range len(good) {
		bad["cut at "+good[:n]] = good[:n]
	}
	for name, text := range bad {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := local.New(local.Config{KeyFile: path})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "keyring new-kek") {
			t.Fatalf("%s: %v, want an error that names the file and says how to make one", name, err)
		}
		if strings.Contains(err.Error(), key[:8]) || strings.Contains(err.Error(), version[:8]) {
			t.Errorf("%s: the error repeats the file", name)
		}
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func flipDigit(s string) string {
	if s[0] == '0' {
		return "1" + s[1:]
	}
	return "0" + s[1:]
}
