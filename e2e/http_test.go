package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/pki"
)

// TestHTTPOverTLS asks the proxy what kubeadm, Prometheus and users of etcd's JSON API
// ask etcd, over TLS on both sides, with either version of HTTP, and with a client
// certificate or none. The log must stay free of values, those in requests that cannot
// be read included.
func TestHTTPOverTLS(t *testing.T) {
	l := newLab(t, true)
	proxy := etcdseal.Start(t, l.secureProxyConfig(t))
	key := etcdseal.SecretsPrefix + "http"
	value := l.secret(t, "http", 10)
	encode := base64.StdEncoding.EncodeToString
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			client := httpClient(t, l, version, l.authority.Client(t, "client"))
			var about struct{ Etcdserver, Etcdcluster string }
			status, text := ask(t, client, version, http.MethodGet, proxy.Endpoint()+"/version", "")
			if err := json.Unmarshal([]byte(text), &about); err != nil || status != http.StatusOK || strings.Count(about.Etcdserver, ".") != 2 {
				t.Errorf("/version: %d %s", status, text)
			}
			for path, want := range map[string]string{"/health": `"health":"true"`, "/readyz?verbose": "[+]linearizable_read ok", "/metrics": "etcd_server_has_leader 1"} {
				if status, text := ask(t, client, version, http.MethodGet, proxy.Endpoint()+path, ""); status != http.StatusOK || !strings.Contains(text, want) {
					t.Errorf("%s: %d %.300s", path, status, text)
				}
			}
			put := fmt.Sprintf(`{"key":%q,"value":%q}`, encode([]byte(key)), encode(value))
			if status, text := ask(t, client, version, http.MethodPost, proxy.Endpoint()+"/v3/kv/put", put); status != http.StatusOK {
				t.Errorf("putting: %d %s", status, text)
			}
			_, text = ask(t, client, version, http.MethodPost, proxy.Endpoint()+"/v3/kv/range", fmt.Sprintf(`{"key":%q}`, encode([]byte(key))))
			if !strings.Contains(text, encode(value)) {
				t.Error("the value does not come back")
			}
			// Neither is base64, as values must be.
			bad := fmt.Sprintf(`{"ID":"%[1]s!","value":"%[1]s!","create_request":{"key":"%[1]s!"}}`, l.marker)
			for _, path := range []string{"/v3/kv/put", "/v3/lease/keepalive"} {
				_, _ = ask(t, client, version, http.MethodPost, proxy.Endpoint()+path, bad)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, proxy.Endpoint()+"/v3/watch", strings.NewReader(bad))
			if err != nil {
				t.Fatalf("making request: %v", err)
			}
			if response, err := client.Do(request); err == nil { // etcd answers nothing, and waits
				response.Body.Close()
			}
			checkNothingPlain(t, l)
			stranger := httpClient(t, l, version, pki.Files{})
			if response, err := stranger.Get(proxy.Endpoint() + "/version"); err == nil {
				response.Body.Close()
				t.Errorf("without a certificate: %s", response.Status)
			}
		})
	}
	l.checkDEKs(t)
}

// httpClient speaks one version of HTTP.
func httpClient(t *testing.T, l *lab, version string, files pki.Files) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: l.authority.ClientConfig(t, files), Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP2(version == "HTTP/2.0")
	transport.Protocols.SetHTTP1(version == "HTTP/1.1")
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: callLimit}
}

// ask makes a request and returns the answer's status and text.
func ask(t *testing.T, client *http.Client, version, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(call(t), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatalf("making request: %v", err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.Proto != version {
		t.Errorf("%s %s: %s, %v", method, url, response.Proto, err)
	}
	return response.StatusCode, string(text)
}

// TestAdvertisedEndpoints has clients take their endpoints from the cluster: they stay
// with the proxy.
func TestAdvertisedEndpoints(t *testing.T) {
	l := newLab(t, false)
	cfg := l.proxyConfig(t)
	cfg.Advertise = []string{"http://etcdseal.invalid:2379"}
	proxy := etcdseal.Start(t, cfg)
	client := proxy.Client(t, l.authority, pki.Files{})
	list := func(client *clientv3.Client) []string {
		t.Helper()
		members, err := client.MemberList(call(t))
		if err != nil {
			t.Fatalf("listing members: %v", err)
		}
		return members.Members[0].ClientURLs
	}
	if got := list(client); !slices.Equal(got, cfg.Advertise) {
		t.Errorf("the proxy lists %v", got)
	}
	if got := list(l.raw); slices.Equal(got, cfg.Advertise) {
		t.Errorf("etcd itself lists %v", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	if err := client.Sync(ctx); err != nil {
		t.Fatalf("synchronising endpoints: %v", err)
	}
	if got := client.Endpoints(); !slices.Equal(got, cfg.Advertise) {
		t.Errorf("after Sync the client goes to %v", got)
	}
}
