package azure_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// az puts a program of this name before all others in PATH, which answers with a text
// and an exit status, and notes its arguments in a file that is returned.
func (l *lab) az(t *testing.T, out, status string) (args string) {
	t.Helper()
	args = filepath.Join(l.dir, "arguments")
	answer := l.write(t, "answer", out)
	script := "#!/bin/sh\necho \"$*\" >'" + args + "'\ncat '" + answer + "'\n[ " + status + " = 0 ] || echo \"ERROR: Please run 'az login' to setup account.\" >&2\nexit " + status + "\n"
	path := l.write(t, "az", script)
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", l.dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return args
}

// token logs in as the lab's application.
func (l *lab) token(t *testing.T) string {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.CA())
	transport := &http.Transport{DialContext: l.Dial, TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).PostForm("https://login.microsoftonline.com/"+emulator.DefaultTenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {secret}, "scope": {"https://vault.azure.net/.default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var in struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&in); err != nil || in.Token == "" {
		t.Fatalf("logging in: %d, %v", answer.StatusCode, err)
	}
	return in.Token
}

// Whoever is logged in with az may use the vault.
func TestAzureCLI(t *testing.T) {
	l := newLab(t)
	expires := time.Now().Add(time.Hour)
	args := l.az(t, fmt.Sprintf(`{"accessToken":%q,"expiresOn":%q,"expires_on":%d,"tokenType":"Bearer"}`,
		l.token(t), expires.Format("2006-01-02 15:04:05.000000"), expires.Unix()), "0")
	k := l.open(t, func(c *azure.Config) { c.Credential = azure.Credential{Type: azure.AzureCLI} })
	opens(t, k, must(t, k))
	asked, err := os.ReadFile(args)
	if err != nil || !strings.Contains(string(asked), "https://vault.azure.net") || !strings.Contains(string(asked), "get-access-token") {
		t.Errorf("az was asked %q, %v", asked, err)
	}
}

// Without a login az says so, and etcdseal says what to do.
func TestAzureCLIWithoutLogin(t *testing.T) {
	l := newLab(t)
	l.az(t, "", "1")
	k := l.open(t, func(c *azure.Config) { c.Credential = azure.Credential{Type: azure.AzureCLI} })
	_, err := k.Version(t.Context())
	wants(t, "not logged in", err, kek.Unavailable, "login by azureCLI failed", "run az login")
}

// The default chain finds what is in the environment.
func TestDefaultChain(t *testing.T) {
	l := newLab(t)
	t.Setenv("AZURE_TENANT_ID", emulator.DefaultTenant)
	t.Setenv("AZURE_CLIENT_ID", clientID)
	t.Setenv("AZURE_CLIENT_SECRET", secret)
	k := l.open(t, func(c *azure.Config) { c.Credential = azure.Credential{Type: azure.DefaultChain} })
	opens(t, k, must(t, k))
	if calls := l.Calls(); calls[len(calls)-1].Client != clientID {
		t.Errorf("the vault's caller is %q", calls[len(calls)-1].Client)
	}
}

// A chain that finds nothing says what to do instead.
func TestDefaultChainFindsNothing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, func(c *azure.Config) { c.Credential = azure.Credential{Type: azure.DefaultChain} })
		_, err := k.Version(t.Context())
		wants(t, "nothing to find", err, kek.Unavailable, "login by default failed", "credential.type")
	})
}
