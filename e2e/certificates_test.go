package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/pki"
	"github.com/etcdseal/etcdseal/e2e/poll"
)

// TestClientCertificates connects with every kind of wrong certificate and with
// the right one.
func TestClientCertificates(t *testing.T) {
	l := newLab(t, true)
	cfg := l.secureProxyConfig(t)
	cfg.AllowedNames = []string{"allowed"}
	proxy := etcdseal.Start(t, cfg)
	stranger := pki.NewAuthority(t, "another authority").Client(t, "allowed")
	for _, tt := range []struct {
		name   string
		client pki.Files
		want   bool
	}{
		{"the allowed name", l.authority.Client(t, "allowed"), true},
		{"another name", l.authority.Client(t, "other"), false},
		{"no name", l.authority.NamelessClient(t, "nameless"), false},
		{"another authority", stranger, false},
		{"no certificate", pki.Files{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := handshake(call(t), proxy.Address(), l.authority.ClientConfig(t, tt.client))
			if accepted := err == nil; accepted != tt.want {
				t.Errorf("accepted: %v (%v), want %v", accepted, err, tt.want)
			}
		})
	}
}

// TestCertificatesReplaced replaces the files under a running proxy, as a
// certificate manager does: new connections see the new ones, and an open
// connection goes on.
func TestCertificatesReplaced(t *testing.T) {
	l := newLab(t, true)
	cfg := l.secureProxyConfig(t)
	trusted := filepath.Join(t.TempDir(), "clients.pem")
	copyFiles(t, trusted, l.authority.CAFile())
	cfg.ClientCAFile = trusted
	proxy := etcdseal.Start(t, cfg)
	files := l.authority.Client(t, "client")
	client := proxy.Client(t, l.authority, files)
	if _, err := client.Get(call(t), "x"); err != nil {
		t.Fatalf("getting before the replacement: %v", err)
	}
	watch := client.Watch(within(t, watchLimit), "x", clientv3.WithCreatedNotify())
	<-watch

	before, err := handshake(call(t), proxy.Address(), l.authority.ClientConfig(t, files))
	if err != nil {
		t.Fatalf("connecting before the replacement: %v", err)
	}
	l.authority.Server(t, "etcdseal-server")
	poll.Until(t, settleLimit, "the new certificate to be served", func(ctx context.Context) error {
		now, err := handshake(ctx, proxy.Address(), l.authority.ClientConfig(t, files))
		if err == nil && now == before {
			err = errors.New("the old certificate is served")
		}
		return err
	})

	added := pki.NewAuthority(t, "added authority")
	config := l.authority.ClientConfig(t, added.Client(t, "client of the added authority"))
	if _, err := handshake(call(t), proxy.Address(), config); err == nil {
		t.Fatal("a client of an authority that was never trusted was accepted")
	}
	copyFiles(t, trusted, l.authority.CAFile(), added.CAFile())
	proxy.Reload(t, func(*etcdseal.Config) {}) // need not wait for the change to be noticed
	poll.Until(t, settleLimit, "the added authority to be trusted", func(ctx context.Context) error {
		_, err := handshake(ctx, proxy.Address(), config)
		return err
	})
	if _, err := client.Put(call(t), "x", "y"); err != nil {
		t.Errorf("putting on the old connection: %v", err)
	}
	if response := <-watch; response.Err() != nil || len(response.Events) != 1 {
		t.Errorf("watch on the old connection: %v", response.Err())
	}
}

// handshake connects as an HTTP/2 client and waits for the server's first
// bytes: with TLS 1.3 only they tell that a client certificate was accepted. It
// returns the serial number of the server's certificate.
func handshake(ctx context.Context, address string, config *tls.Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	// The client's preface and an empty SETTINGS frame (RFC 9113, section 3.4).
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return "", err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return "", err
	}
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// copyFiles replaces a file by the contents of others, at once.
func copyFiles(t *testing.T, to string, from ...string) {
	t.Helper()
	var all []byte
	for _, file := range from {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("reading %s: %v", file, err)
		}
		all = append(all, data...)
	}
	if err := os.WriteFile(to+".next", all, 0o600); err != nil {
		t.Fatalf("writing %s: %v", to, err)
	}
	if err := os.Rename(to+".next", to); err != nil {
		t.Fatalf("replacing %s: %v", to, err)
	}
}
