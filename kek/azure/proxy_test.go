package azure_test

import (
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// A private endpoint is another address for the same name: TLS, the requests and the
// challenge's verification keep the vault's.
func TestPrivateEndpoint(t *testing.T) {
	l := newLab(t)
	address, err := l.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := l.open(t, func(c *azure.Config) {
		c.Address, c.AuthorityHost, c.Dial = address.String(), "https://"+address.String(), nil
		c.Proxy = func(r *http.Request) (*url.URL, error) {
			if r.URL.Host == host {
				t.Error("the proxy is asked for the vault")
			}
			return nil, nil
		}
	})
	opens(t, k, must(t, k))
}

// tunnel is an HTTP proxy that leads everybody to the emulator.
type tunnel struct {
	l     *lab
	mu    sync.Mutex // guards asked
	asked []string   // methods and hosts
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	to, err := p.l.Dial(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = to.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(to, buffered); _ = to.Close() })
	both.Go(func() { _, _ = io.Copy(from, to); _ = from.Close() })
	both.Wait()
}

// hosts returns what the proxy was asked for, sorted.
func (p *tunnel) hosts() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(slices.Sorted(slices.Values(p.asked)), ", ")
}

// Through a proxy, itself reached in plain or over TLS, TLS is with the vault all the
// same.
func TestProxy(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			l := newLab(t)
			way := &tunnel{l: l}
			proxy, ca := httptest.NewUnstartedServer(way), l.CA()
			if scheme == "http" {
				proxy.Start()
			} else {
				proxy.StartTLS()
				ca = append(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw})...)
			}
			t.Cleanup(proxy.Close)
			k := l.open(t, func(c *azure.Config) {
				c.Dial, c.CAFile = nil, l.write(t, "both.pem", string(ca))
				c.Proxy = http.ProxyURL(&url.URL{Scheme: scheme, Host: proxy.Listener.Addr().String()})
			})
			opens(t, k, must(t, k))
			if got, want := way.hosts(), "CONNECT login.microsoftonline.com:443, CONNECT "+host+":443"; got != want {
				t.Errorf("the proxy was asked %s, want %s", got, want)
			}
		})
	}
}

// The machine's metadata service is not asked through a proxy: it would give out the
// proxy's identity.
func TestMetadataServiceIsReachedDirectly(t *testing.T) {
	l := newLab(t)
	l.AddApp(emulator.App{ClientID: "behind-a-proxy", Managed: true})
	way := &tunnel{l: l}
	proxy := httptest.NewServer(way)
	t.Cleanup(proxy.Close)
	k := l.open(t, func(c *azure.Config) {
		c.Credential = azure.Credential{Type: azure.ManagedIdentity, ClientID: "behind-a-proxy"}
		c.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxy.Listener.Addr().String()})
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == emulator.IMDSAddress {
				return l.Dial(ctx, network, address)
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	opens(t, k, must(t, k))
	if got, want := way.hosts(), "CONNECT "+host+":443"; got != want {
		t.Errorf("the proxy was asked %s, want %s", got, want)
	}
}

// A proxy that does not let etcdseal through says nothing about the key.
func TestProxyRefuses(t *testing.T) {
	l := newLab(t)
	for _, status := range []int{403, 404, 407, 502} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>This page was blocked by your organisation", status)
		}))
		t.Cleanup(proxy.Close)
		k := l.open(t, func(c *azure.Config) {
			c.Dial, c.Proxy = nil, http.ProxyURL(&url.URL{Scheme: "http", Host: proxy.Listener.Addr().String()})
		})
		_, err := k.Version(t.Context())
		wants(t, http.StatusText(status), err, kek.Unavailable, "no answer from the vault", "proxy")
	}
}

// The emulator's own proxy leads a client that knows nothing but the proxy and the
// authority to the vault, and to nobody else.
func TestEmulatorsProxy(t *testing.T) {
	l := newLab(t)
	address, err := l.ListenProxy(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	through := func(c *azure.Config) {
		c.Dial, c.Proxy = nil, http.ProxyURL(&url.URL{Scheme: "http", Host: address.String()})
	}
	k := l.open(t, through)
	opens(t, k, must(t, k))
	elsewhere := l.open(t, func(c *azure.Config) {
		through(c)
		c.VaultURL = "https://elsewhere.vault.azure.net"
	})
	_, err = elsewhere.Version(t.Context())
	wants(t, "another vault", err, kek.Unavailable, "no answer from the vault")
}
