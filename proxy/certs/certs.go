// Package certs keeps a TLS configuration in step with the PEM files it was made from.
//
// A Source reads a certificate, its key and a set of CA certificates, and builds one *tls.Config from them. It looks at the files again when a handshake
// asks for the configuration, at most once in an interval whatever the number of handshakes, and whenever Reload is called. Files that cannot be used
// (half written, a key that does not fit, a certificate that the caller's check refuses) change nothing: the configuration in use stays, and the
// failure is logged once and returned by Reload.
//
// Guarantees: a configuration is made of files that were read together and fit each other; the configuration returned for a handshake never changes
// afterwards. No goroutine is started, and no file is open between calls.
package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultInterval is the least time between two looks at the files when Config.Interval is zero.
const DefaultInterval = 10 * time.Second

// Config names the files of a Source. The zero value is a Source without any material.
type Config struct {
	// CertFile and KeyFile hold a certificate chain, leaf first, and the leaf's private key, in PEM. Both or neither are set.
	CertFile, KeyFile string
	// CAFile holds the CA certificates, in PEM, that the other side's certificate must lead to. Empty: Material.Pool is nil.
	CAFile string
	// Check refuses a leaf certificate that must not be used, when the Source is opened and at every reload. Nil accepts all.
	Check func(leaf *x509.Certificate) error
	// Interval is the least time between two looks at the files. Zero is DefaultInterval.
	Interval time.Duration
	// Now is the clock. Nil is time.Now.
	Now func() time.Time
	// Logger gets a line for each reload and for each new reason why one failed. Nil logs nothing.
	Logger *slog.Logger
}

// Material is what was read from the files of a Config at one moment.
type Material struct {
	// Certificate is nil when the Config names no CertFile. Its Leaf is parsed.
	Certificate *tls.Certificate
	// Pool is nil when the Config names no CAFile.
	Pool *x509.CertPool
}

// Source gives the TLS configuration that the files stand for now. It is safe for concurrent use.
type Source struct {
	cfg     Config
	build   func(Material) *tls.Config
	next    atomic.Int64 // when the files may be looked at again, in Unix nanoseconds
	current atomic.Pointer[loaded]

	mu      sync.Mutex // held while the files are looked at; guards what follows
	seen    []os.FileInfo
	failure string
}

// loaded is one configuration and what it was built of. It is never changed.
type loaded struct {
	material Material
	config   *tls.Config
}

// Open reads the files and builds the first configuration. Build is called once for each set of files that was read; what it returns must not be
// changed by anyone afterwards (clone it instead).
func Open(cfg Config, build func(Material) *tls.Config) (*Source, error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("opening certificates: a certificate file and a key file are needed together")
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{cfg: cfg, build: build}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Config returns the configuration for the next handshake, after a look at the files if one is due. The caller must clone it before changing it.
func (s *Source) Config() *tls.Config {
	now, next := s.cfg.Now().UnixNano(), s.next.Load()
	// Whoever wins the exchange looks at the files; the other handshakes go on with what is loaded.
	if now >= next && s.next.CompareAndSwap(next, now+int64(s.cfg.Interval)) {
		s.refresh()
	}
	return s.current.Load().config
}

// Leaf returns the certificate in use, or nil when there is none. It is for reporting the time of expiry; it does not look at the files.
func (s *Source) Leaf() *x509.Certificate {
	if c := s.current.Load().material.Certificate; c != nil {
		return c.Leaf
	}
	return nil
}

// Reload reads all files now, changed or not. On an error the configuration in use stays.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next.Store(s.cfg.Now().Add(s.cfg.Interval).UnixNano())
	return s.load(s.stat())
}

// refresh reads the files if they differ from those that the configuration in use was made of. While they cannot be used they go on to differ, so that they are
// tried again at every look: what is wrong with them (permissions, say) need not show in what stat tells.
func (s *Source) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := s.stat()
	if same(s.seen, infos) {
		s.failure = ""
		return
	}
	_ = s.load(infos) // logged there; the configuration in use stays
}

// load reads the files and puts a new configuration in place. Infos were taken before, so that a file changed during the reading shows at the next look.
// The caller holds s.mu.
func (s *Source) load(infos []os.FileInfo) error {
	material, err := s.read()
	if err != nil {
		if text := err.Error(); text != s.failure {
			s.failure = text
			s.cfg.Logger.Error("certificates not reloaded, the old ones stay in use", "error", err)
		}
		return err
	}
	first := s.current.Load() == nil
	s.current.Store(&loaded{material: material, config: s.build(material)})
	s.seen, s.failure = infos, ""
	if !first {
		s.cfg.Logger.Info("certificates reloaded", "certFile", s.cfg.CertFile, "caFile", s.cfg.CAFile, "notAfter", notAfter(material))
	}
	return nil
}

// read reads and checks all files.
func (s *Source) read() (Material, error) {
	var m Material
	if s.cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.cfg.CertFile, s.cfg.KeyFile)
		if err != nil {
			return Material{}, fmt.Errorf("loading certificate %s with key %s: %w", s.cfg.CertFile, s.cfg.KeyFile, err)
		}
		if s.cfg.Check != nil {
			if err := s.cfg.Check(pair.Leaf); err != nil {
				return Material{}, fmt.Errorf("checking certificate %s: %w", s.cfg.CertFile, err)
			}
		}
		m.Certificate = &pair
	}
	if s.cfg.CAFile != "" {
		pool, err := readPool(s.cfg.CAFile)
		if err != nil {
			return Material{}, fmt.Errorf("loading CA certificates %s: %w", s.cfg.CAFile, err)
		}
		m.Pool = pool
	}
	return m, nil
}

// readPool reads CA certificates.
func readPool(file string) (*x509.CertPool, error) {
	authorities, err := ReadAuthorities(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, cert := range authorities {
		pool.AddCert(cert)
	}
	return pool, nil
}

// ReadAuthorities reads CA certificates, at least one. Unlike x509.CertPool.AppendCertsFromPEM it refuses a file of which it does not understand every
// block: a CA that is silently left out is found only when its first client is turned away.
func ReadAuthorities(file string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var authorities []*x509.Certificate
	n := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		n++
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("reading PEM block %d: it is a %q, not a CERTIFICATE", n, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing PEM block %d: %w", n, err)
		}
		authorities = append(authorities, cert)
	}
	// Decode skips a block that is cut off or damaged.
	if begun := bytes.Count(content, []byte("-----BEGIN ")); n == 0 || n != begun {
		return nil, fmt.Errorf("reading PEM blocks: %d of %d are whole", n, begun)
	}
	return authorities, nil
}

// stat looks at the files. A file that cannot be looked at is nil, which is the same as nothing.
func (s *Source) stat() []os.FileInfo {
	var infos []os.FileInfo
	for _, file := range []string{s.cfg.CertFile, s.cfg.KeyFile, s.cfg.CAFile} {
		if file == "" {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			info = nil
		}
		infos = append(infos, info)
	}
	return infos
}

// same says whether two looks saw the same files, by identity (Kubernetes swaps a symbolic link), size and time of change.
func same(a, b []os.FileInfo) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] == nil || b[i] == nil || !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

// notAfter is the time of expiry of the material's certificate, the zero time if it has none.
func notAfter(m Material) time.Time {
	if m.Certificate == nil {
		return time.Time{}
	}
	return m.Certificate.Leaf.NotAfter
}
