package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxFileBytes is the size up to which a file is read. A real one has a few
// hundred bytes; the parser takes time that is quadratic in the nesting.
const maxFileBytes = 64 << 10

// Load reads the file at path, checks it, and checks that the files which it
// names can be opened. Relative paths in it are relative to its own directory.
// methods are the full names of the gRPC methods that need no leave, since the
// proxy knows them. The error is an *Error with all problems, or says why the
// file could not be read.
func Load(path string, methods ...string) (*Config, error) {
	c, err := Read(path, methods...)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Read is Load for who wants to look further although something is wrong: if the text
// has no problem and only files that it names cannot be opened, the Config comes with the
// error. Otherwise it is nil when there is an error.
func Read(path string, methods ...string) (*Config, error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("finding the directory of %s: %w", path, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	c, r := parse(data, dir, methods)
	sound := len(r.problems) == 0
	if c != nil {
		c.checkFiles(r)
	}
	if !sound {
		c = nil
	}
	return c, r.err(path)
}

// Parse checks the text of a configuration without touching any file. dir is
// the absolute directory that relative paths start from, methods are as for Load.
// The error is an *Error with all problems.
func Parse(data []byte, dir string, methods ...string) (*Config, error) {
	c, r := parse(data, dir, methods)
	if err := r.err(""); err != nil {
		return nil, err
	}
	return c, nil
}

// parse reads and validates. The Config is nil if there is no document to speak
// of, and not to be used outside the package if the report has problems.
func parse(data []byte, dir string, methods []string) (*Config, *report) {
	r := &report{lines: map[string]int{}, unread: map[string]bool{}}
	if len(data) > maxFileBytes {
		r.at(0, "", "%d bytes: more than %d are not read", len(data), maxFileBytes)
		return nil, r
	}
	top := parseDocument(data, r)
	if top == nil {
		return nil, r
	}
	c := defaults()
	c.read(top)
	top.close()
	c.resolve(dir)
	c.validate(r, methods)
	return c, r
}

// defaults returns the Config of a file in which nothing is said.
func defaults() *Config {
	return &Config{
		Admin:         Admin{Address: DefaultAdminAddress},
		Etcd:          Etcd{ProbeInterval: DefaultProbeInterval},
		Keyring:       Keyring{Store: StoreEtcd},
		Limits:        Limits{MaxRequestBytes: DefaultMaxRequestBytes, MemoryBytes: DefaultMemoryBytes},
		Outage:        Outage{CheckInterval: DefaultCheckInterval, DeniedGrace: DefaultDeniedGrace},
		Audit:         Audit{OnFailure: AuditFail},
		Log:           Log{Level: LogInfo},
		ShutdownGrace: DefaultShutdownGrace,
	}
}

// defaultRule returns a rule of which nothing is said.
func defaultRule() Rule {
	return Rule{Seal: true, Plaintext: PlaintextAllow, OnUndecryptable: UndecryptableFail}
}

// resolve makes every path absolute.
func (c *Config) resolve(dir string) {
	c.Listen.Address = resolveAddress(c.Listen.Address, dir)
	for i := range c.Etcd.Endpoints {
		c.Etcd.Endpoints[i] = resolveAddress(c.Etcd.Endpoints[i], dir)
	}
	for _, kek := range c.KEKs {
		if kek.KMSv2 != nil && !strings.HasPrefix(kek.KMSv2.Endpoint, unixScheme+"@") { // which checkPlugin refuses
			kek.KMSv2.Endpoint = resolveAddress(kek.KMSv2.Endpoint, dir)
		}
	}
	for _, file := range c.files() {
		if *file.name != "" && !filepath.IsAbs(*file.name) {
			*file.name = filepath.Join(dir, *file.name)
		}
	}
}

// file is one file that the configuration names.
type file struct {
	path string  // the field
	name *string // the file; empty if the field is not given
	made bool    // etcdseal makes it, so only its directory must be there
}

// files returns every field that names a file.
func (c *Config) files() []file {
	files := []file{
		{path: "listen.tls.certFile", name: &c.Listen.TLS.CertFile},
		{path: "listen.tls.keyFile", name: &c.Listen.TLS.KeyFile},
		{path: "listen.tls.clientCAFile", name: &c.Listen.TLS.ClientCAFile},
		{path: "etcd.tls.caFile", name: &c.Etcd.TLS.CAFile},
		{path: "etcd.tls.certFile", name: &c.Etcd.TLS.CertFile},
		{path: "etcd.tls.keyFile", name: &c.Etcd.TLS.KeyFile},
		{path: "etcd.auth.passwordFile", name: &c.Etcd.Auth.PasswordFile},
		{path: "keyring.path", name: &c.Keyring.Path, made: true},
		{path: "audit.file", name: &c.Audit.File, made: true},
		{path: "keyring.authKeyFile", name: &c.Keyring.AuthKeyFile},
	}
	for _, name := range c.kekNames() {
		if kek := c.KEKs[name]; kek.Local != nil {
			files = append(files, file{path: "keks." + name + ".local.keyFile", name: &kek.Local.KeyFile})
		}
		if azure := c.KEKs[name].AzureKeyVault; azure != nil {
			at, credential := "keks."+name+".azureKeyVault.", &azure.Credential
			files = append(files,
				file{path: at + "caFile", name: &azure.CAFile},
				file{path: at + "credential.tokenFile", name: &credential.TokenFile},
				file{path: at + "credential.secretFile", name: &credential.SecretFile},
				file{path: at + "credential.certificateFile", name: &credential.CertificateFile})
		}
	}
	return files
}

// checkFiles reports the files that are not there or cannot be opened.
func (c *Config) checkFiles(r *report) {
	files := c.files()
	if socket, ok := socketPath(c.Listen.Address); ok {
		files = append(files, file{path: "listen.address", name: &socket, made: true})
	}
	for _, f := range files {
		if *f.name == "" {
			continue
		}
		if f.made {
			checkDirectory(r, f)
		} else {
			checkReadable(r, f)
		}
	}
}

// checkDirectory reports a file that could not be made for want of its
// directory.
func checkDirectory(r *report, f file) {
	dir := filepath.Dir(*f.name)
	if info, err := os.Stat(dir); err != nil {
		r.add(f.path, "its directory cannot be used: %v", err)
	} else if !info.IsDir() {
		r.add(f.path, "%s is not a directory", dir)
	}
}

// checkReadable reports a file that cannot be opened or is not a regular one.
func checkReadable(r *report, f file) {
	info, err := os.Stat(*f.name) // before opening, which would wait for the other end of a pipe
	if err != nil {
		r.add(f.path, "%v", err)
		return
	}
	if !info.Mode().IsRegular() {
		r.add(f.path, "%s is not a regular file", *f.name)
		return
	}
	opened, err := os.Open(*f.name)
	if err != nil {
		r.add(f.path, "%v", err)
		return
	}
	_ = opened.Close() // it was only read
}
