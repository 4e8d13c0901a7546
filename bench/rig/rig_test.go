package rig

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseMetrics(t *testing.T) {
	const text = "# HELP a b\n# TYPE a gauge\ngo_memstats_heap_alloc_bytes 1.5e+06\nrpc{code=\"OK\"} 7\ngo_threads 8\nbroken x\n"
	if diff := cmp.Diff(map[string]float64{"go_memstats_heap_alloc_bytes": 1.5e6, "go_threads": 8}, parseMetrics(text)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestPKI(t *testing.T) {
	p, err := newPKI(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(p.serverCert, p.serverKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.client.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	subject := make(chan string, 1)
	go func() {
		defer close(subject)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if server := c.(*tls.Conn); server.Handshake() == nil {
			subject <- server.ConnectionState().PeerCertificates[0].Subject.CommonName
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), p.client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if name, ok := <-subject; !ok || name != "" {
		t.Errorf("server accepted the client: %t, as %q, want accepted without a common name", ok, name)
	}
}

func TestBaselines(t *testing.T) {
	for _, name := range TargetNames {
		direct, copied := Baselines(name)
		if Secured(direct) != Secured(name) || Secured(copied) != Secured(name) || IsSeal(direct) || IsSeal(copied) {
			t.Errorf("%s is compared with %s and %s, want those with the same transport", name, direct, copied)
		}
	}
	sealed, plain := Target{Sealed: true}, Target{}
	if len(sealed.Prefix(7)) != len(plain.Prefix(42)) {
		t.Errorf("prefixes %s and %s differ in length", sealed.Prefix(7), plain.Prefix(42))
	}
}

func TestWithEarlier(t *testing.T) {
	got := strings.Join(WithEarlier([]string{TCPCopy, NoRule, Sealing, SealingTLS}), " ")
	if want := "tcpcopy etcdseal-norule etcdseal-earlier-norule etcdseal etcdseal-earlier etcdseal-tls etcdseal-earlier-tls"; got != want {
		t.Errorf("targets are %s, want %s", got, want)
	}
	r := &Rig{Binaries: Binaries{Etcdseal: "new", Earlier: "old"}}
	for name, earlier := range EarlierOf {
		if r.sealBinary(name) != "new" || r.sealBinary(earlier) != "old" || sealed(name) != sealed(earlier) || Secured(name) != Secured(earlier) {
			t.Errorf("%s and %s differ in more than the binary", name, earlier)
		}
	}
}

func TestParseVersion(t *testing.T) {
	if got, err := parseVersion("etcd Version: 3.7.3\nGit SHA: x\n"); got != "3.7.3" || err != nil {
		t.Errorf("version is %q, %v", got, err)
	}
	if _, err := parseVersion("usage: sleep\n"); err == nil {
		t.Error("another program's output was accepted")
	}
}
