package emulator_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// pool holds the RSA keys of all tests, which take long to make.
var pool []*rsa.PrivateKey

func TestMain(m *testing.M) {
	for range 3 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		pool = append(pool, key)
	}
	os.Exit(m.Run())
}

// client is a Key Vault client that does what it is told: requests are written by
// hand, as the REST reference has them.
type client struct {
	*emulator.Server
	vault *emulator.Vault
	http  *http.Client
	token string
}

func newClient(t *testing.T, cfg emulator.VaultConfig) *client {
	t.Helper()
	var mu sync.Mutex
	made := 0
	server, err := emulator.New(emulator.Config{GenerateKey: func(int) (*rsa.PrivateKey, error) {
		mu.Lock()
		defer mu.Unlock()
		made++
		return pool[made%len(pool)], nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.CA())
	transport := &http.Transport{DialContext: server.Dial, TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &client{Server: server, vault: server.AddVault(cfg), http: &http.Client{Transport: transport}}
	c.AddApp(emulator.App{ClientID: "app", Secret: "pass"})
	c.login(t)
	return c
}

// login gets a token.
func (c *client) login(t *testing.T) {
	t.Helper()
	domain := c.vault.URL()[strings.Index(c.vault.URL(), ".")+1:]
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"app"}, "client_secret": {"pass"}, "scope": {"https://" + domain + "/.default"}}
	status, _, body := c.send(t, "POST", "https://login.microsoftonline.com/"+emulator.DefaultTenant+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", form.Encode())
	c.token, _ = body["access_token"].(string)
	if status != http.StatusOK || c.token == "" {
		t.Fatalf("login: %d %v", status, body)
	}
}

func (c *client) send(t *testing.T, method, target, contentType, in string) (int, http.Header, map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if len(data) > 0 && json.Unmarshal(data, &out) != nil {
		t.Fatalf("%s %s: the answer is not JSON: %s", method, target, data)
	}
	return response.StatusCode, response.Header, out
}

// call makes a request of the vault; path is what comes after the host name.
func (c *client) call(t *testing.T, method, path, in string) (int, map[string]any) {
	t.Helper()
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	status, _, out := c.send(t, method, c.vault.URL()+path+separator+"api-version=2025-07-01", "application/json", in)
	return status, out
}

// dig returns what is in nested JSON.
func dig(v map[string]any, path ...string) any {
	var at any = v
	for _, name := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[name]
	}
	return at
}

// refused checks an error's status, codes and a part of its text.
func refused(t *testing.T, what string, status int, body map[string]any, want int, code, inner, text string) {
	t.Helper()
	gotInner, _ := dig(body, "error", "innererror", "code").(string)
	message, _ := dig(body, "error", "message").(string)
	if status != want || dig(body, "error", "code") != code || gotInner != inner || !strings.Contains(message, text) {
		t.Errorf("%s: %d %v, want %d %s/%s %q", what, status, body, want, code, inner, text)
	}
}

func TestLifeOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
		status, made := c.call(t, "POST", "/keys/k/create", `{"kty":"RSA","key_size":2048,"key_ops":["wrapKey","unwrapKey"]}`)
		kid, _ := dig(made, "key", "kid").(string)
		if status != 200 || !strings.HasPrefix(kid, "https://v.vault.azure.net/keys/k/") || dig(made, "attributes", "recoveryLevel") != "Recoverable+Purgeable" || dig(made, "key", "e") != "AQAB" {
			t.Fatalf("create: %d %v", status, made)
		}
		path := strings.TrimPrefix(kid, c.vault.URL())
		value := base64.RawURLEncoding.EncodeToString([]byte("the plaintext"))
		status, wrapped := c.call(t, "POST", path+"/wrapkey", `{"alg":"RSA-OAEP-256","value":"`+value+`"}`)
		if status != 200 || wrapped["kid"] != kid {
			t.Fatalf("wrapkey: %d %v", status, wrapped)
		}
		unwrap := func() (int, map[string]any) {
			return c.call(t, "POST", path+"/unwrapkey", `{"alg":"RSA-OAEP-256","value":"`+wrapped["value"].(string)+`"}`)
		}
		if status, out := unwrap(); status != 200 || out["value"] != value {
			t.Errorf("unwrapkey: %d %v", status, out)
		}

		status, rotated := c.call(t, "POST", "/keys/k/rotate", "")
		if status != 200 || dig(rotated, "key", "kid") == kid {
			t.Errorf("rotate: %d %v", status, rotated)
		}
		if _, latest := c.call(t, "GET", "/keys/k/", ""); dig(latest, "key", "kid") != dig(rotated, "key", "kid") {
			t.Errorf("the latest is %v", latest)
		}
		if status, out := unwrap(); status != 200 || out["value"] != value {
			t.Errorf("unwrapkey by the old version: %d %v", status, out)
		}
		newer := strings.TrimPrefix(dig(rotated, "key", "kid").(string), c.vault.URL())
		status, out := c.call(t, "POST", newer+"/unwrapkey", `{"alg":"RSA-OAEP-256","value":"`+wrapped["value"].(string)+`"}`)
		refused(t, "unwrapkey by another version", status, out, 400, "BadParameter", "", "Unable to decrypt specified value with this key.")

		if status, _ := c.call(t, "PATCH", path, `{"attributes":{"enabled":false}}`); status != 200 {
			t.Errorf("disabling: %d", status)
		}
		status, out = unwrap()
		refused(t, "disabled", status, out, 403, "Forbidden", "KeyDisabled", "Operation unwrapKey is not allowed on a disabled key.")
		c.call(t, "PATCH", path, `{"attributes":{"enabled":true}}`)

		c.login(t)
		status, deleted := c.call(t, "DELETE", "/keys/k", "")
		if status != 200 || deleted["recoveryId"] != "https://v.vault.azure.net/deletedkeys/k" || deleted["scheduledPurgeDate"] == nil {
			t.Errorf("delete: %d %v", status, deleted)
		}
		status, out = unwrap()
		refused(t, "deleted", status, out, 404, "KeyNotFound", "", "was not found in this key vault. If you recently deleted this key")
		status, out = c.call(t, "GET", "/deletedkeys/k", "")
		refused(t, "being deleted", status, out, 404, "KeyNotFound", "", "Deleted Key not found: k")
		status, out = c.call(t, "POST", "/keys/k/create", `{"kty":"RSA"}`)
		refused(t, "create while it is being deleted", status, out, 409, "Conflict", "ObjectIsBeingDeleted", "")
		time.Sleep(11 * time.Second)
		if status, _ := c.call(t, "GET", "/deletedkeys/k", ""); status != 200 {
			t.Errorf("deletedkeys: %d", status)
		}
		status, out = c.call(t, "POST", "/keys/k/create", `{"kty":"RSA"}`)
		refused(t, "create of a deleted name", status, out, 409, "Conflict", "ObjectIsDeletedButRecoverable", "")
		if status, _ := c.call(t, "POST", "/deletedkeys/k/recover", ""); status != 200 {
			t.Errorf("recover: %d", status)
		}
		if status, out := unwrap(); status != 200 || out["value"] != value {
			t.Errorf("recovered: %d %v", status, out)
		}
		c.vault.Delete("k")
		if status, _ := c.call(t, "DELETE", "/deletedkeys/k", ""); status != 204 {
			t.Errorf("purge: %d", status)
		}
		if status, _ := c.call(t, "POST", "/keys/k/create", `{"kty":"RSA"}`); status != 200 {
			t.Errorf("create after the purge: %d", status)
		}
	})
}

func TestPurgeProtection(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net", PurgeProtection: true, RecoverableDays: 7})
	c.vault.CreateKey("k", "RSA", 0)
	if _, out := c.call(t, "GET", "/keys/k", ""); dig(out, "attributes", "recoveryLevel") != "CustomizedRecoverable" || dig(out, "attributes", "recoverableDays") != 7.0 {
		t.Errorf("%v", out)
	}
	c.vault.Delete("k")
	status, out := c.call(t, "DELETE", "/deletedkeys/k", "")
	refused(t, "purge", status, out, 403, "Forbidden", "", `Operation "purge" is not allowed because purge protection is enabled`)
}

// The listing is complete, in pages, and its order says nothing of age.
func TestVersions(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	made := []string{c.vault.CreateKey("k", "RSA", 0)}
	for range 59 {
		made = append(made, c.vault.Rotate("k"))
	}
	var listed []string
	for next, pages := c.vault.URL()+"/keys/k/versions?api-version=2025-07-01", 0; next != ""; pages++ {
		status, _, out := c.send(t, "GET", next, "", "")
		if status != 200 || pages > 3 {
			t.Fatalf("page %d: %d %v", pages, status, out)
		}
		for _, item := range out["value"].([]any) {
			kid := item.(map[string]any)["kid"].(string)
			listed = append(listed, kid[strings.LastIndex(kid, "/")+1:])
		}
		next, _ = out["nextLink"].(string)
	}
	if len(listed) != 60 {
		t.Fatalf("%d versions are listed, want 60", len(listed))
	}
	same := true
	seen := map[string]bool{}
	for i, v := range listed {
		same = same && v == made[i]
		seen[v] = true
	}
	if same || len(seen) != 60 {
		t.Errorf("in the order of making: %v, %d different ones", same, len(seen))
	}
}

func TestRefusals(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	c.vault.CreateKey("k", "RSA", 0)
	c.vault.CreateKey("ec", "EC", 0)
	good := `{"alg":"RSA-OAEP-256","value":"AAAA"}`
	for _, r := range []struct {
		name, method, path, in string
		status                 int
		code, inner, text      string
	}{
		{"bad base64", "POST", "/keys/k//wrapkey", `{"alg":"RSA-OAEP-256","value":"+/=="}`, 400, "BadParameter", "", "Content of 'value' is not base64url.\r\nProperty 'value' is required.\r\n"},
		{"no value", "POST", "/keys/k/wrapkey", `{"alg":"RSA-OAEP-256"}`, 400, "BadParameter", "", "base64url"},
		{"no JSON", "POST", "/keys/k/wrapkey", `x`, 400, "BadParameter", "", "JSON"},
		{"unknown algorithm", "POST", "/keys/k/wrapkey", `{"alg":"A256KW","value":"AAAA"}`, 400, "BadParameter", "", "incompatible"},
		{"EC key", "POST", "/keys/ec/wrapkey", good, 403, "Forbidden", "KeyOperationForbidden", "Operation wrapKey is not permitted on this key."},
		{"unknown key", "POST", "/keys/none/wrapkey", good, 404, "KeyNotFound", "", "A key with (name/id) none was not found"},
		{"unknown version", "POST", "/keys/k/0123/unwrapkey", good, 404, "KeyNotFound", "", "k/0123"},
		{"bad name", "POST", "/keys/a_b/create", `{"kty":"RSA"}`, 400, "BadParameter", "", "invalid name"},
		{"bad type", "POST", "/keys/new/create", `{"kty":"oct-HSM"}`, 400, "BadParameter", "", "kty"},
		{"bad path", "GET", "/secrets/k", "", 400, "BadParameter", "", ""},
		{"bad page", "GET", "/keys/k/versions?maxresults=26", "", 400, "BadParameter", "", "maxresults"},
	} {
		status, out := c.call(t, r.method, r.path, r.in)
		refused(t, r.name, status, out, r.status, r.code, r.inner, r.text)
	}
}

func TestRotationPolicy(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	c.vault.CreateKey("k", "RSA", 0)
	status, out := c.call(t, "PUT", "/keys/k/rotationpolicy", `{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P90D"},"action":{"type":"Rotate"}}]}`)
	if actions, _ := out["lifetimeActions"].([]any); status != 200 || len(actions) != 2 || c.vault.Policy("k") != "P90D" {
		t.Errorf("%d %v", status, out)
	}
	if _, again := c.call(t, "GET", "/keys/k/rotationpolicy", ""); again["id"] != "https://v.vault.azure.net/keys/k/rotationpolicy" {
		t.Errorf("%v", again)
	}
}

// What a vault says to those who may not come in.
func TestAuthorization(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	h := c.AddVault(emulator.VaultConfig{Host: "h.managedhsm.azure.net"})
	far := c.AddVault(emulator.VaultConfig{Host: "far.vault.azure.net", Tenant: "other"})
	get := func(vault *emulator.Vault) (int, string, map[string]any) {
		status, header, out := c.send(t, "GET", vault.URL()+"/keys/k/?api-version=2025-07-01", "", "")
		return status, header.Get("WWW-Authenticate"), out
	}
	status, _, out := get(h)
	refused(t, "another service's token", status, out, 401, "Unauthorized", "", "AKV10022")
	status, challenge, out := get(far)
	refused(t, "another tenant's token", status, out, 401, "Unauthorized", "", "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/other/")
	if challenge != `Bearer authorization="https://login.microsoftonline.com/other", resource="https://vault.azure.net"` {
		t.Errorf("the challenge is %s", challenge)
	}
	c.RevokeTokens()
	status, challenge, _ = get(c.vault)
	if status != 401 || !strings.Contains(challenge, `error="insufficient_claims", claims="`) {
		t.Errorf("a revoked token: %d %s", status, challenge)
	}
	c.ExpireTokens()
	status, _, out = get(c.vault)
	refused(t, "an expired token", status, out, 401, "Unauthorized", "", "AKV10046")
	c.token = ""
	status, _, out = get(c.vault)
	refused(t, "no token", status, out, 401, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token.")
	status, challenge, out = get(h)
	if status != 401 || out != nil || !strings.Contains(challenge, `resource="https://managedhsm.azure.net"`) {
		t.Errorf("a Managed HSM: %d %v %s", status, out, challenge)
	}
}

// Faults befall the calls they fit, as often as they say.
func TestFaults(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	c.vault.CreateKey("k", "RSA", 0)
	two := emulator.Throttled(emulator.OpGet, "7")
	two.Times = 2
	fault := c.Inject(two)
	for i, want := range []int{429, 429, 200} {
		status, header, _ := c.send(t, "GET", c.vault.URL()+"/keys/k/?api-version=1", "", "")
		if status != want || (status == 429) != (header.Get("Retry-After") == "7") {
			t.Errorf("call %d: %d, want %d", i, status, want)
		}
	}
	if fault.Hits() != 2 {
		t.Errorf("%d hits", fault.Hits())
	}
	elsewhere := emulator.ServerError("", 500)
	elsewhere.Vault = "other.vault.azure.net"
	c.Inject(elsewhere)
	if status, _ := c.call(t, "GET", "/keys/k", ""); status != 200 {
		t.Errorf("another vault's fault: %d", status)
	}
	late := emulator.ServerError(emulator.OpRotate, 500)
	late.AfterEffect = true
	injected := c.Inject(late)
	before := c.vault.Current("k")
	if status, _ := c.call(t, "POST", "/keys/k/rotate", ""); status != 500 || c.vault.Current("k") == before {
		t.Errorf("a fault after the effect: %d, rotated: %v", status, c.vault.Current("k") != before)
	}
	injected.Clear()
	if status, _ := c.call(t, "POST", "/keys/k/rotate", ""); status != 200 {
		t.Errorf("after Clear: %d", status)
	}
	c.Inject(emulator.HTML("", 502))
	c.ClearFaults()
	if status, _ := c.call(t, "GET", "/keys/k", ""); status != 200 {
		t.Errorf("after ClearFaults: %d", status)
	}
}

func TestCallsAreLogged(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	version := c.vault.CreateKey("k", "RSA", 0)
	c.ForgetCalls()
	request, err := http.NewRequestWithContext(t.Context(), "POST", c.vault.URL()+"/keys/k/"+version+"/unwrapkey?api-version=1", strings.NewReader(`{"alg":"RSA-OAEP-256","value":"AAAA"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Authorization": {"Bearer " + c.token}, "X-Ms-Client-Request-Id": {"mine"}, "User-Agent": {"me"}}
	response, err := c.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	calls := c.Calls()
	want := emulator.Call{Vault: "v.vault.azure.net", Op: emulator.OpUnwrap, Key: "k", Version: version, Tenant: emulator.DefaultTenant, Client: "app",
		Status: 400, Code: "BadParameter", RequestID: response.Header.Get("X-Ms-Request-Id"), ClientRequestID: "mine", UserAgent: "me"}
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	if calls[0].Time = (time.Time{}); calls[0] != want {
		t.Errorf("got %+v\nwant %+v", calls[0], want)
	}
}

// Another process can do what the Go API does.
func TestControl(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	first := c.vault.CreateKey("k", "RSA", 0)
	control := httptest.NewServer(c.Control(c.vault))
	t.Cleanup(control.Close)
	do := func(method, path, in string, want int) string {
		t.Helper()
		request, err := http.NewRequestWithContext(context.Background(), method, control.URL+path, strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != want {
			t.Errorf("%s %s: %d %s, %v, want %d", method, path, response.StatusCode, data, err, want)
		}
		return string(data)
	}
	if got := do("GET", "/version?key=k", "", 200); got != first+"\n" {
		t.Errorf("the version is %q, want %q", got, first)
	}
	do("GET", "/version?key=none", "", 404)
	do("POST", "/rotate?key=k", "", 200)
	if c.vault.Current("k") == first {
		t.Error("it was not rotated")
	}
	do("POST", "/disable?key=k&version="+first, "", 200)
	status, out := c.call(t, "POST", "/keys/k/"+first+"/wrapkey", `{"alg":"RSA-OAEP-256","value":"AAAA"}`)
	refused(t, "disabled", status, out, 403, "Forbidden", "KeyDisabled", "")
	do("POST", "/enable?key=k&version="+first, "", 200)
	do("POST", "/delete?key=k", "", 200)
	do("POST", "/delete?key=k", "", 404)
	do("POST", "/recover?key=k", "", 200)
	do("POST", "/faults", `{"Op":"get","Status":418}`, 200)
	do("POST", "/faults", `{"op":"get","colour":1}`, 400)
	if status, _ := c.call(t, "GET", "/keys/k", ""); status != 418 {
		t.Errorf("the fault: %d", status)
	}
	do("DELETE", "/faults", "", 200)
	if status, _ := c.call(t, "GET", "/keys/k", ""); status != 200 {
		t.Errorf("after the faults: %d", status)
	}
	if calls := do("GET", "/", "", 200); !strings.Contains(calls, `"status":418`) || strings.Contains(calls, c.token) {
		t.Errorf("the calls: %s", calls)
	}
}

// A name that no vault has is refused in the handshake, as by a server that is not
// its.
func TestUnknownNames(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	c.RemoveVault("v.vault.azure.net")
	request, err := http.NewRequestWithContext(t.Context(), "GET", "https://v.vault.azure.net/keys/k", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := c.http.Do(request); err == nil {
		_ = response.Body.Close()
		t.Errorf("answered %d", response.StatusCode)
	}
}

// An answer is written in full whatever the size of the request, up to a bound.
func TestLargeRequest(t *testing.T) {
	c := newClient(t, emulator.VaultConfig{Host: "v.vault.azure.net"})
	c.vault.CreateKey("k", "RSA", 0)
	status, out := c.call(t, "POST", "/keys/k/wrapkey", `{"alg":"RSA-OAEP-256","value":"`+string(bytes.Repeat([]byte("A"), 4<<20))+`"}`)
	refused(t, "4 MiB", status, out, 400, "BadParameter", "", "JSON")
}
