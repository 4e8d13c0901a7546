package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/proxy/certs"
)

// expiryWarning is how long before its expiry a certificate or key is warned of.
const expiryWarning = 30 * 24 * time.Hour

// certificates looks at the certificates in the files of both legs. Those that etcd shows
// are looked at with its members.
func (d *doctor) certificates(_ context.Context, n *notes) {
	c := d.Config.Config
	if c.Listen.TLS.CertFile != "" {
		d.listenCertificate(n, c)
	}
	d.authorities(n, "listen.tls.clientCAFile", c.Listen.TLS.ClientCAFile)
	if c.Etcd.TLS.CertFile != "" {
		d.etcdCertificate(n, c.Etcd)
	}
	d.authorities(n, "etcd.tls.caFile", c.Etcd.TLS.CAFile)
}

// chain reads a certificate chain with its key. It returns nil after noting what is wrong.
func (d *doctor) chain(n *notes, subject, certFile, keyFile string) []*x509.Certificate {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		n.add(Certificates, Problem, subject, "see that the files are a certificate chain, leaf first, and the leaf's key, both in PEM", "%s with %s cannot be used: %v", certFile, keyFile, err)
		return nil
	}
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			n.add(Certificates, Problem, subject, "make the file anew", "%s holds a certificate that cannot be read: %v", certFile, err)
			return nil
		}
		chain = append(chain, cert)
	}
	for i, cert := range chain[:len(chain)-1] {
		if err := cert.CheckSignatureFrom(chain[i+1]); err != nil {
			n.add(Certificates, Problem, subject, "put the certificates in order: the leaf, then the one that signed it, and so on", "certificate %d of %s is not signed by the next one: %v", i+1, certFile, err)
			return nil
		}
	}
	return chain
}

// listenCertificate looks at what etcdseal shows its clients.
func (d *doctor) listenCertificate(n *notes, c *config.Config) {
	const subject = "listen.tls.certFile"
	chain := d.chain(n, subject, c.Listen.TLS.CertFile, c.Listen.TLS.KeyFile)
	if chain == nil {
		return
	}
	d.expiry(n, subject, chain)
	leaf := chain[0]
	if !serves(leaf, x509.ExtKeyUsageServerAuth) {
		n.add(Certificates, Problem, subject, "make one with extended key usage serverAuth", "the certificate is not one for servers, so that clients refuse it")
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		n.add(Certificates, Problem, subject, "make one with the DNS names and addresses by which clients reach etcdseal", "the certificate has no subject alternative name, so that clients refuse it")
		return
	}
	if missing := uncovered(leaf, c.Listen); len(missing) > 0 {
		n.add(Certificates, Warning, subject, "make one with these names too, or see that no client uses them", "the certificate is not for %s; it is for %s", strings.Join(missing, ", "), namesOf(leaf))
		return
	}
	n.add(Certificates, OK, subject, "", "for %s", namesOf(leaf))
}

// uncovered are the hosts by which clients may reach the listener and that the certificate
// is not for.
func uncovered(leaf *x509.Certificate, l config.Listen) []string {
	var hosts []string
	if host, _, err := net.SplitHostPort(l.Address); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
		hosts = append(hosts, host)
	}
	for _, advertised := range l.Advertise {
		if u, err := url.Parse(advertised); err == nil && u.Scheme == "https" {
			hosts = append(hosts, u.Hostname())
		}
	}
	slices.Sort(hosts)
	return slices.DeleteFunc(slices.Compact(hosts), func(host string) bool { return leaf.VerifyHostname(host) == nil })
}

// etcdCertificate looks at what etcdseal shows etcd.
func (d *doctor) etcdCertificate(n *notes, e config.Etcd) {
	const subject = "etcd.tls.certFile"
	chain := d.chain(n, subject, e.TLS.CertFile, e.TLS.KeyFile)
	if chain == nil {
		return
	}
	d.expiry(n, subject, chain)
	if !serves(chain[0], x509.ExtKeyUsageClientAuth) {
		n.add(Certificates, Problem, subject, "make one with extended key usage clientAuth", "the certificate is not one for clients, so that etcd refuses it")
	}
	const without = "make a certificate without a common name, and give etcdseal a user (etcd.auth)"
	switch cn := chain[0].Subject.CommonName; {
	case cn == "":
		n.add(Certificates, OK, subject, "", "no common name")
	case e.AllowClientCN:
		n.add(Certificates, Warning, subject, without, "the common name is %q: with etcd's authentication on, every call without a token is made as that user", cn)
	default:
		n.add(Certificates, Problem, subject, without+", or set etcd.allowClientCN if etcd's authentication is off", "the common name is %q, as which etcd would take every call without a token: etcdseal does not start with it", cn)
	}
}

// authorities looks at a file of authorities, if there is one.
func (d *doctor) authorities(n *notes, subject, file string) {
	if file == "" {
		return
	}
	authorities, err := certs.ReadAuthorities(file)
	if err != nil {
		n.add(Certificates, Problem, subject, "see that the file holds certificates of authorities in PEM and nothing else", "%s cannot be used: %v", file, err)
		return
	}
	for i, cert := range authorities {
		if !cert.IsCA {
			n.add(Certificates, Problem, subject, "put the authority's own certificate there", "certificate %d of %s, %s, is not an authority's", i+1, file, cert.Subject)
			return
		}
	}
	d.expiry(n, subject, authorities)
}

// expiry looks at when certificates expire, and notes the first of them that does.
func (d *doctor) expiry(n *notes, subject string, chain []*x509.Certificate) {
	level, found := d.expires(chain)
	do := ""
	if level != OK {
		do = "renew it; etcdseal takes the new file without a restart"
	}
	n.add(Certificates, level, subject, do, "%s", found)
}

// expires says when the first of some certificates does.
func (d *doctor) expires(chain []*x509.Certificate) (Level, string) {
	first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	last := slices.MaxFunc(chain, func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
	left := first.NotAfter.Sub(d.Now())
	at := first.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case left <= 0:
		return Problem, fmt.Sprintf("%s expired at %s", title(first), at)
	case last.NotBefore.After(d.Now()):
		return Problem, fmt.Sprintf("%s is not valid before %s: is this machine's clock right?", title(last), last.NotBefore.UTC().Format(time.RFC3339))
	case left < expiryWarning:
		return Warning, fmt.Sprintf("expires at %s, in %s", at, days(left))
	}
	return OK, fmt.Sprintf("expires at %s, in %s", at, days(left))
}

// title names a certificate.
func title(cert *x509.Certificate) string {
	if name := cert.Subject.String(); name != "" {
		return name
	}
	return "the certificate"
}

// days returns a duration in days.
func days(d time.Duration) string {
	if d < 24*time.Hour {
		return "less than a day"
	}
	return plural(int64(d/(24*time.Hour)), "day")
}

// serves says whether a certificate is for a use. One that says nothing is for all.
func serves(cert *x509.Certificate, use x509.ExtKeyUsage) bool {
	return len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 || slices.Contains(cert.ExtKeyUsage, use) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// namesOf lists what a certificate is for.
func namesOf(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return strings.Join(names, ", ")
}
