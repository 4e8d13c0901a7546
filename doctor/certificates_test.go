package doctor

import (
	"net"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
)

// pki is what certificate files are made of.
type pki struct {
	*testing.T
	dir string
	ca  *certstest.CA
}

// months is long after expiryWarning.
func months() time.Time { return time.Now().Add(200 * 24 * time.Hour) }

func (k pki) server(names ...string) certstest.Pair {
	return k.ca.Issue(k, certstest.Request{Server: true, DNSNames: names, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: months()})
}

func (k pki) pair(name string, p certstest.Pair) (cert, key string) { return p.Write(k, k.dir, name) }

// Each finding is there when there is reason for it, and not otherwise.
func TestCertificates(t *testing.T) {
	const listening, client, authority = "listen.tls.certFile", "etcd.tls.certFile", "etcd.tls.caFile"
	for name, r := range map[string]struct {
		change func(pki, *Config)
		level  Level
		texts  []string
	}{
		"expired": {func(k pki, p *Config) {
			k.pair("server", k.ca.Issue(k, certstest.Request{Server: true, DNSNames: []string{"s"}, NotAfter: time.Now().Add(-time.Minute)}))
		}, Problem, []string{listening, "expired at"}},
		"expires soon": {func(k pki, p *Config) {
			k.pair("client", k.ca.Issue(k, certstest.Request{NotAfter: time.Now().Add(20 * 24 * time.Hour)}))
		}, Warning, []string{client, "in 19 days"}},
		"not valid yet":     {func(k pki, p *Config) { p.Now = func() time.Time { return time.Now().Add(-48 * time.Hour) } }, Problem, []string{client, "not valid before"}},
		"authority expires": {func(k pki, p *Config) { p.Config.Etcd.TLS.CAFile = k.ca.Write(k, k.dir) }, Warning, []string{authority, "less than a day"}},
		"key of another":    {func(k pki, p *Config) { _, p.Config.Listen.TLS.KeyFile = k.pair("other", k.server()) }, Problem, []string{listening, "cannot be used"}},
		"no certificate":    {func(k pki, p *Config) { p.Config.Etcd.TLS.CertFile += ".none" }, Problem, []string{client, "cannot be used"}},
		"chain of others": {func(k pki, p *Config) {
			pair := k.server("s")
			pair.Cert = append(pair.Cert, certstest.NewCA(k, "other").PEM()...)
			k.pair("server", pair)
		}, Problem, []string{listening, "not signed by the next one"}},
		"no name": {func(k pki, p *Config) {
			k.pair("server", k.ca.Issue(k, certstest.Request{Server: true, CommonName: "127.0.0.1", NotAfter: months()}))
		}, Problem, []string{listening, "no subject alternative name"}},
		"not the address":        {func(k pki, p *Config) { p.Config.Listen.Address = "10.0.0.1:2389" }, Warning, []string{listening, "not for 10.0.0.1"}},
		"not what is advertised": {func(k pki, p *Config) { p.Config.Listen.Advertise = []string{"https://s.example:2379"} }, Warning, []string{listening, "not for s.example"}},
		"not a server's": {func(k pki, p *Config) {
			k.pair("server", k.ca.Issue(k, certstest.Request{DNSNames: []string{"s"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: months()}))
		}, Problem, []string{listening, "not one for servers"}},
		"common name": {func(k pki, p *Config) {
			k.pair("client", k.ca.Issue(k, certstest.Request{CommonName: "root", NotAfter: months()}))
		}, Problem, []string{client, `"root"`, "does not start"}},
		"common name, allowed": {func(k pki, p *Config) {
			p.Config.Etcd.AllowClientCN = true
			k.pair("client", k.ca.Issue(k, certstest.Request{CommonName: "root", NotAfter: months()}))
		}, Warning, []string{client, `"root"`, "every call without a token"}},
		"no authority":     {func(k pki, p *Config) { p.Config.Etcd.TLS.CAFile = p.Config.Etcd.TLS.CertFile }, Problem, []string{authority, "not an authority's"}},
		"broken authority": {func(k pki, p *Config) { p.Config.Etcd.TLS.CAFile = p.Config.Etcd.TLS.KeyFile }, Problem, []string{authority, "cannot be used"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			k := pki{t, dir, certstest.NewCA(t, "ca")}
			c := settings(t, dir, "https://10.0.0.4:2379")
			c.Listen.Address = "127.0.0.1:2389"
			c.Listen.TLS.CertFile, c.Listen.TLS.KeyFile = k.pair("server", k.server("s"))
			c.Etcd.TLS.CertFile, c.Etcd.TLS.KeyFile = k.pair("client", k.ca.Issue(t, certstest.Request{NotAfter: months()}))
			p := Config{Config: c}
			check := func(d *doctor) check { return d.certificates }
			wantsNot(t, run(t, p, check), Certificates, r.level, r.texts...)
			r.change(k, &p)
			wants(t, run(t, p, check), Certificates, r.level, r.texts...)
		})
	}
}

// A good pair is said to be good.
func TestGoodCertificates(t *testing.T) {
	dir := t.TempDir()
	k := pki{t, dir, certstest.NewCA(t, "ca")}
	c := settings(t, dir, "https://10.0.0.4:2379")
	c.Listen.Address = "0.0.0.0:2389"
	c.Listen.TLS.CertFile, c.Listen.TLS.KeyFile = k.pair("server", k.server("s"))
	c.Etcd.TLS.CertFile, c.Etcd.TLS.KeyFile = k.pair("client", k.ca.Issue(t, certstest.Request{NotAfter: months()}))
	found := run(t, Config{Config: c}, func(d *doctor) check { return d.certificates })
	wants(t, found, Certificates, OK, "listen.tls.certFile", "for s, 127.0.0.1")
	wants(t, found, Certificates, OK, "listen.tls.certFile", "in 199 days")
	wants(t, found, Certificates, OK, "etcd.tls.certFile", "no common name")
	if Worst(found) != OK {
		t.Error(shown(found))
	}
}

func (pki) loopback() []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1)} }
