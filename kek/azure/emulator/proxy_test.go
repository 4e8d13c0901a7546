package emulator_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// Through the proxy a client that knows the authority gets to vaults and login under
// their real names, and nowhere else; Close ends what goes through it.
func TestProxy(t *testing.T) {
	server, err := emulator.New(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server.AddVault(emulator.VaultConfig{Host: "v.vault.azure.net"})
	address, err := server.ListenProxy(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.CA())
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: address.String()}), TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	get := func(target string) (int, error) {
		response, err := (&http.Client{Transport: transport}).Get(target)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	for target, want := range map[string]int{
		"https://v.vault.azure.net/keys/k?api-version=1":                                                         http.StatusUnauthorized,
		"https://login.microsoftonline.com/" + emulator.DefaultTenant + "/v2.0/.well-known/openid-configuration": http.StatusOK,
		"http://v.vault.azure.net/": http.StatusForbidden, // not by CONNECT
	} {
		if got, err := get(target); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", target, got, err, want)
		}
	}
	for _, target := range []string{"https://other.vault.azure.net/", "https://v.vault.azure.net:8443/", "https://example.com/"} {
		if got, err := get(target); err == nil || !strings.Contains(err.Error(), "Forbidden") {
			t.Errorf("%s: %d, %v, want it forbidden", target, got, err)
		}
	}
	// A connection is left open.
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if got, err := get("https://v.vault.azure.net/keys/k?api-version=1"); err == nil {
		t.Errorf("after Close: %d", got)
	}
}

// Clients that are older than scopes log in at another path, for a resource.
func TestOlderTokenEndpoint(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	c.vault.CreateKey("k", "RSA", 0)
	login := func(secret string) (int, map[string]any) {
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"app"}, "client_secret": {secret}, "resource": {"https://vault.azure.net/"}}
		status, _, body := c.send(t, "POST", "https://login.microsoftonline.com/"+emulator.DefaultTenant+"/oauth2/token?api-version=1.0", "application/x-www-form-urlencoded", form.Encode())
		return status, body
	}
	status, body := login("pass")
	c.token, _ = body["access_token"].(string)
	if status != http.StatusOK || body["resource"] != "https://vault.azure.net" || !isNumber(body["expires_in"]) {
		t.Errorf("login: %d %v", status, body)
	}
	if status, out := c.call(t, "GET", "/keys/k", ""); status != http.StatusOK {
		t.Errorf("with that token: %d %v", status, out)
	}
	if status, body := login("wrong"); status != http.StatusUnauthorized || body["error"] != "invalid_client" {
		t.Errorf("with a wrong secret: %d %v", status, body)
	}
}

// isNumber says whether something in JSON is a number in a string.
func isNumber(v any) bool {
	text, _ := v.(string)
	_, err := strconv.Atoi(text)
	return err == nil
}
