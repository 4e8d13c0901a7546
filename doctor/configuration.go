package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/etcdseal/etcdseal/config"
)

// configuration says what is wrong with the configuration, all of it, and looks at what
// it says by itself.
func (d *doctor) configuration(_ context.Context, n *notes) {
	var wrong *config.Error
	switch {
	case d.Err == nil:
		n.add(Configuration, OK, d.File, "", "can be used")
	case errors.As(d.Err, &wrong):
		for _, p := range wrong.Problems {
			subject := p.Path
			if subject == "" {
				subject = d.File
			}
			p.Path = ""
			n.add(Configuration, Problem, subject, "", "%s", p.String()) // which says what to do
		}
	default:
		n.add(Configuration, Problem, d.File, "see to it that etcdseal may read the file", "%v", d.Err)
	}
	d.mode(n, d.File, writable)
	c := d.Config.Config
	if c == nil {
		return
	}
	for _, f := range secretFiles(c) {
		d.mode(n, f, readable)
	}
	d.listening(n, c)
	d.advertised(n, c)
	if d.AuditErr != nil {
		n.add(Configuration, Problem, "audit", "etcdseal does not start without its audit log: see to the file and its directory", "%v", d.AuditErr)
	} else if c.Audit.File == "" && !c.Audit.Stdout {
		n.add(Configuration, OK, "audit", "set audit.file, if uses of the keys are to be written down", "off")
	}
}

// secretFiles are the files that hold secrets and that etcdseal reads whatever their mode;
// a local KEK's and the keyring's authentication key it reads only with mode 0600.
func secretFiles(c *config.Config) []string {
	files := []string{c.Listen.TLS.KeyFile, c.Etcd.TLS.KeyFile, c.Etcd.Auth.PasswordFile}
	for _, k := range c.KEKs {
		if k.AzureKeyVault != nil {
			files = append(files, k.AzureKeyVault.Credential.SecretFile, k.AzureKeyVault.Credential.CertificateFile)
		}
	}
	slices.Sort(files)
	files = slices.Compact(files)
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// What others than a file's owner must not be able to do with it.
const (
	readable fs.FileMode = 0o044 | writable
	writable fs.FileMode = 0o022
)

// mode looks at the rights that others than its owner have to a file. One that is not
// there has been reported.
func (d *doctor) mode(n *notes, file string, forbidden fs.FileMode) {
	info, err := os.Stat(file)
	if err != nil {
		return
	}
	perm := info.Mode().Perm()
	switch {
	case perm&0o002 != 0:
		n.add(Configuration, Problem, file, "run `chmod o-w "+file+"`", "mode %#o: everybody may write to it", perm)
	case perm&forbidden&writable != 0:
		n.add(Configuration, Warning, file, "run `chmod g-w "+file+"`", "mode %#o: its group may write to it", perm)
	case perm&forbidden != 0:
		n.add(Configuration, Warning, file, "run `chmod 600 "+file+"`", "mode %#o: others than its owner may read the secret in it", perm)
	default:
		n.add(Configuration, OK, file, "", "mode %#o", perm)
	}
}

// listening looks at who can reach the addresses that are listened on.
func (d *doctor) listening(n *notes, c *config.Config) {
	l := c.Listen
	subject := "listen.address " + l.Address
	switch {
	case strings.HasPrefix(l.Address, "unix://"):
		n.add(Configuration, OK, subject, "", "a socket that only its owner can open")
	case !l.Insecure:
		n.add(Configuration, OK, subject, "", "TLS, and clients show certificates")
	case local(l.Address):
		n.add(Configuration, Warning, subject, "set listen.tls with clientCAFile, or listen on a unix socket", "insecure: every process on this machine can read what is sealed")
	default:
		n.add(Configuration, Problem, subject, "set listen.tls with clientCAFile, or listen on 127.0.0.1 or a unix socket", "insecure: whoever reaches this address can read what is sealed")
	}
	if subject = "admin.address " + c.Admin.Address; local(c.Admin.Address) {
		n.add(Configuration, OK, subject, "", "reached from this machine only")
	} else {
		n.add(Configuration, Warning, subject, "listen on 127.0.0.1, or see to it that only probes and Prometheus reach it", "plain HTTP that can be reached from elsewhere; it gives away names and counts, never a value")
	}
	for _, endpoint := range c.Etcd.Endpoints {
		if bare(endpoint) == bare(l.Address) {
			n.add(Configuration, Problem, "etcd.endpoints", "name etcd's own address, and another one for etcdseal", "%s is where etcdseal itself listens", endpoint)
		}
	}
}

// advertised looks at the URLs by which clients are told to reach etcdseal.
func (d *doctor) advertised(n *notes, c *config.Config) {
	l := c.Listen
	if len(l.Advertise) == 0 {
		if !strings.HasPrefix(l.Address, "unix://") && !local(l.Address) {
			n.add(Configuration, OK, "listen.advertise", "set it if clients take their endpoints from etcd (clientv3's Sync, kubeadm); kube-apiserver does not", "not set: lists of members name etcd's own addresses, past etcdseal")
		}
		return
	}
	level := OK
	for _, url := range l.Advertise {
		switch {
		case slices.ContainsFunc(c.Etcd.Endpoints, func(e string) bool { return bare(e) == bare(url) }):
			n.add(Configuration, Problem, "listen.advertise", "name the URL by which clients reach etcdseal", "%s is etcd itself, past etcdseal", url)
		case strings.HasPrefix(url, "https://") != (l.TLS.CertFile != "") && !strings.HasPrefix(url, "unix://"):
			n.add(Configuration, Problem, "listen.advertise", "write https:// if listen.tls is set, else http://", "%s does not fit listen.tls", url)
		default:
			continue
		}
		level = Problem
	}
	if level == OK {
		n.add(Configuration, OK, "listen.advertise", "", "lists of members name %s", strings.Join(l.Advertise, ", "))
	}
}

// bare returns an address without its scheme, unless it is that of a socket.
func bare(address string) string {
	for _, scheme := range []string{"https://", "http://"} {
		address = strings.TrimPrefix(address, scheme)
	}
	return address
}

// local says whether an address can be reached from this machine only.
func local(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	return ip.IsLoopback()
}
