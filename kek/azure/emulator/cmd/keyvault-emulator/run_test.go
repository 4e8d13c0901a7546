package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/config"
)

// The command says all that a configuration needs, and answers until it is told to
// end.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"--dir", dir, "--vault", "h.managedhsm.azure.net"}, writer, io.Discard)
		_ = writer.Close()
	}()
	text := make([]byte, 64<<10)
	n, err := reader.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	out := string(text[:n])
	address := regexp.MustCompile(`address: (\S+)`).FindStringSubmatch(out)
	if address == nil || !strings.Contains(out, "vaultURL: https://h.managedhsm.azure.net") || !strings.Contains(out, filepath.Join(dir, "ca.pem")) {
		t.Fatalf("it says:\n%s", out)
	}
	rest := "listen: {address: \"unix://s.sock\"}\netcd: {endpoints: [\"unix://e.sock\"]}\nkeyring: {name: c}\n"
	if parsed, err := config.Parse([]byte(rest+out), dir); err != nil || parsed.KEKs["prod"].AzureKeyVault == nil {
		t.Errorf("what it says is no configuration: %v\n%s", err, out)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "h.managedhsm.azure.net"}, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address[1]+"/keys/etcd?api-version=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "h.managedhsm.azure.net"
	response, err := client.Do(request)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		t.Fatalf("%v, %v, want a 401", response, err)
	}
	_ = response.Body.Close()
	cancel()
	if got := <-status; got != 0 {
		t.Errorf("exit status %d", got)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"--no-such-flag"}, {"--dir", "x", "argument"}} {
		var stderr bytes.Buffer
		if got := run(t.Context(), args, io.Discard, &stderr); got != 2 || stderr.Len() == 0 {
			t.Errorf("%v: %d, %q", args, got, stderr.String())
		}
	}
}
