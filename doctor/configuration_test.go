package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/etcdseal/etcdseal/config"
)

// Each finding is there when there is reason for it, and not otherwise.
func TestConfiguration(t *testing.T) {
	const etcd = "http://127.0.0.1:2379"
	for name, r := range map[string]struct {
		change func(*Config)
		level  Level
		texts  []string
	}{
		"insecure":              {func(p *Config) { listen(p, "0.0.0.0:2389", true) }, Problem, []string{"listen.address", "insecure: whoever"}},
		"insecure everywhere":   {func(p *Config) { listen(p, ":2389", true) }, Problem, []string{"listen.address", "insecure: whoever"}},
		"insecure on loopback":  {func(p *Config) { listen(p, "127.0.0.1:2389", true) }, Warning, []string{"listen.address", "every process"}},
		"insecure on localhost": {func(p *Config) { listen(p, "localhost:2389", true) }, Warning, []string{"listen.address", "every process"}},
		"TLS":                   {func(p *Config) { listen(p, "0.0.0.0:2389", false) }, OK, []string{"listen.address", "clients show certificates"}},
		"admin":                 {func(p *Config) { p.Config.Admin.Address = "0.0.0.0:2381" }, Warning, []string{"admin.address", "from elsewhere"}},
		"to itself":             {func(p *Config) { listen(p, "127.0.0.1:2379", true) }, Problem, []string{"etcd.endpoints", "etcdseal itself"}},
		"not advertised":        {func(p *Config) { listen(p, "10.0.0.1:2389", false) }, OK, []string{"listen.advertise", "not set"}},
		"advertised":            {func(p *Config) { p.Config.Listen.Advertise = []string{"unix:///run/s.sock"} }, OK, []string{"listen.advertise", "name unix:///run/s.sock"}},
		"etcd advertised":       {func(p *Config) { p.Config.Listen.Advertise = []string{etcd} }, Problem, []string{"listen.advertise", "etcd itself"}},
		"TLS advertised":        {func(p *Config) { p.Config.Listen.Advertise = []string{"https://s:2379"} }, Problem, []string{"does not fit listen.tls"}},
		"nothing written down":  {func(p *Config) { p.Config.Audit = config.Audit{} }, OK, []string{"audit", "off"}},
		"audit broken":          {func(p *Config) { p.AuditErr = errTest }, Problem, []string{"audit", "the test said so"}},
		"unreadable":            {func(p *Config) { p.Err = errTest }, Problem, []string{"etcdseal.yaml", "the test said so"}},
		"a file is missing": {func(p *Config) {
			p.Err = &config.Error{Problems: []config.Problem{{Path: "etcd.tls.caFile", Line: 3, Text: "no such file"}}}
		}, Problem,
			[]string{"etcd.tls.caFile", "line 3: no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := Config{File: filepath.Join(dir, "etcdseal.yaml"), Config: settings(t, dir, etcd)}
			p.Config.Audit.Stdout = true
			check := func(d *doctor) check { return d.configuration }
			wantsNot(t, run(t, p, check), Configuration, r.level, r.texts...)
			r.change(&p)
			wants(t, run(t, p, check), Configuration, r.level, r.texts...)
		})
	}
}

func listen(p *Config, address string, insecure bool) {
	p.Config.Listen.Address, p.Config.Listen.Insecure = address, insecure
}

func TestModes(t *testing.T) {
	for _, r := range []struct {
		mode    os.FileMode
		secret  bool
		level   Level
		finding string
	}{
		{0o600, true, OK, "mode 0600"}, {0o400, true, OK, "mode 0400"}, {0o644, false, OK, "mode 0644"},
		{0o640, true, Warning, "may read the secret"}, {0o604, true, Warning, "may read the secret"},
		{0o620, false, Warning, "its group may write"}, {0o666, true, Problem, "everybody may write"}, {0o602, false, Problem, "everybody may write"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, r.mode); err != nil {
			t.Fatal(err)
		}
		p := Config{File: file, Config: settings(t, dir, "http://10.0.0.4:2379")}
		if r.secret {
			p.File, p.Config.Etcd.Auth.PasswordFile = filepath.Join(dir, "none"), file
		}
		found := run(t, p, func(d *doctor) check { return d.configuration })
		wants(t, found, Configuration, r.level, file, r.finding)
	}
}

// Every field that names a secret which others may be able to read is looked at.
func TestSecretFiles(t *testing.T) {
	c := settings(t, t.TempDir(), "http://10.0.0.4:2379")
	c.Listen.TLS.KeyFile, c.Etcd.TLS.KeyFile, c.Etcd.Auth.PasswordFile = "a", "b", "c"
	c.KEKs["v"] = config.KEK{AzureKeyVault: &config.AzureKEK{Credential: config.AzureCredential{SecretFile: "d", CertificateFile: "d"}}}
	if got := secretFiles(c); len(got) != 4 {
		t.Errorf("got %q", got)
	}
}
