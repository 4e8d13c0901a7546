package config

import (
	"math"
	"slices"
	"time"
)

// read fills c from the top section. Fields that are not given keep the
// defaults that c came with.
func (c *Config) read(s *section) {
	s.sub("listen", c.Listen.read)
	s.sub("admin", func(s *section) { s.text("address", &c.Admin.Address) })
	s.sub("etcd", c.Etcd.read)
	s.sub("keks", c.readKEKs)
	c.readRules(s)
	s.sub("keyring", c.Keyring.read)
	s.texts("allowMethods", &c.AllowMethods)
	s.sub("limits", func(s *section) {
		s.number("maxRequestBytes", &c.Limits.MaxRequestBytes, 1024, math.MaxInt32)
		s.number("memoryBytes", &c.Limits.MemoryBytes, 1<<20, 1<<40)
	})
	s.sub("outage", c.Outage.read)
	s.sub("audit", c.Audit.read)
	s.sub("log", func(s *section) {
		choice(s, "level", &c.Log.Level, LogDebug, LogInfo, LogWarn, LogError)
	})
	s.duration("shutdownGrace", &c.ShutdownGrace, 0, time.Hour)
}

func (l *Listen) read(s *section) {
	s.text("address", &l.Address)
	s.flag("insecure", &l.Insecure)
	s.texts("advertise", &l.Advertise)
	s.sub("tls", func(s *section) {
		s.text("certFile", &l.TLS.CertFile)
		s.text("keyFile", &l.TLS.KeyFile)
		s.text("clientCAFile", &l.TLS.ClientCAFile)
		s.texts("allowedNames", &l.TLS.AllowedNames)
	})
}

func (e *Etcd) read(s *section) {
	s.texts("endpoints", &e.Endpoints)
	s.sub("tls", func(s *section) {
		s.text("caFile", &e.TLS.CAFile)
		s.text("certFile", &e.TLS.CertFile)
		s.text("keyFile", &e.TLS.KeyFile)
		s.text("serverName", &e.TLS.ServerName)
	})
	s.sub("auth", func(s *section) {
		s.text("username", &e.Auth.Username)
		s.text("passwordFile", &e.Auth.PasswordFile)
	})
	s.duration("probeInterval", &e.ProbeInterval, 100*time.Millisecond, 10*time.Minute)
	s.flag("allowClientCN", &e.AllowClientCN)
}

// readKEKs reads the KEKs, whose names are the section's fields. One whose
// description is wrong is kept without a provider, so that rules that name it
// are not reported as well.
func (c *Config) readKEKs(s *section) {
	c.KEKs = map[string]KEK{}
	for _, name := range s.names {
		if !nameForm.MatchString(name) {
			s.report.add(s.join(name), "not a KEK name: %s", nameFormText)
		}
		var kek KEK
		if _, given := s.take(name); !given {
			s.report.add(s.join(name), noProvider)
		}
		s.sub(name, kek.read)
		c.KEKs[name] = kek
	}
}

// providers are the fields of a KEK.
var providers = [...]string{"local", "azureKeyVault", "kmsV2"}

// read reads one KEK and sees to it that there is exactly one provider.
func (k *KEK) read(s *section) {
	s.sub("local", func(s *section) {
		k.Local = &LocalKEK{}
		s.text("keyFile", &k.Local.KeyFile)
		if k.Local.KeyFile == "" {
			s.report.missing(s.join("keyFile"), "name the key file; `etcdseal keyring new-kek --out kek.key` makes one")
		}
	})
	s.sub("azureKeyVault", func(s *section) {
		k.AzureKeyVault = defaultAzureKEK()
		k.AzureKeyVault.read(s)
	})
	s.sub("kmsV2", func(s *section) {
		k.KMSv2 = &KMSv2KEK{Timeout: DefaultKMSv2Timeout, PollInterval: DefaultKMSv2PollInterval}
		k.KMSv2.read(s)
	})
	given, misspelt := 0, false
	for _, name := range s.names {
		if !slices.Contains(providers[:], name) {
			misspelt = true // close reports it
		} else if !isNull(s.fields[name]) {
			given++
		}
	}
	switch {
	case given > 1:
		s.report.add(s.path, "%d providers: keep one; another KEK takes a name of its own", given)
	case given == 0 && !misspelt:
		s.report.add(s.path, noProvider)
	}
}

func (k *KMSv2KEK) read(s *section) {
	s.text("endpoint", &k.Endpoint)
	s.duration("timeout", &k.Timeout, 100*time.Millisecond, 20*time.Second)
	s.duration("pollInterval", &k.PollInterval, time.Second, time.Hour)
}

// noProvider is what is said of a KEK without any.
const noProvider = "no provider: write local: {keyFile: kek.key}, azureKeyVault or kmsV2"

// readRules reads the rules. Without any, c.Rules stays nil, which asks validate
// for the default.
func (c *Config) readRules(s *section) {
	elements, given := s.list("rules")
	if isNull(s.fields["rules"]) {
		return
	}
	if given && len(elements) == 0 {
		s.report.add("rules", "empty, so that nothing would be sealed: leave it out for %s, or add a rule", DefaultRulePrefix)
	}
	c.Rules = make([]Rule, len(elements))
	for i, element := range elements {
		c.Rules[i] = defaultRule()
		if section := newSection(element, index("rules", i), s.report); section != nil {
			c.Rules[i].read(section)
			section.close()
		}
	}
}

func (r *Rule) read(s *section) {
	s.text("prefix", &r.Prefix)
	s.text("kek", &r.KEK)
	s.texts("recoveryKEKs", &r.RecoveryKEKs)
	s.flag("seal", &r.Seal)
	choice(s, "plaintext", &r.Plaintext, PlaintextAllow, PlaintextDeny)
	choice(s, "onUndecryptable", &r.OnUndecryptable, UndecryptableFail, UndecryptablePassthrough)
}

func (o *Outage) read(s *section) {
	s.duration("checkInterval", &o.CheckInterval, time.Second, time.Hour)
	s.duration("deniedGrace", &o.DeniedGrace, time.Second, 24*time.Hour)
	s.duration("offlineLimit", &o.OfflineLimit, 0, 365*24*time.Hour)
}

func (a *Audit) read(s *section) {
	s.text("file", &a.File)
	s.flag("stdout", &a.Stdout)
	choice(s, "onFailure", &a.OnFailure, AuditFail, AuditContinue)
	switch {
	case a.File != "" && a.Stdout:
		s.report.add(s.path, "both file and stdout: keep one")
	case a.File == "" && !a.Stdout && !s.report.isUnread(s.join("file")) && !s.report.isUnread(s.join("stdout")):
		s.report.add(s.path, "neither file nor stdout, so that nothing would be written: set one, or leave audit out")
	}
}

func (k *Keyring) read(s *section) {
	s.text("name", &k.Name)
	choice(s, "store", &k.Store, StoreEtcd, StoreFile)
	s.text("prefix", &k.Prefix)
	s.text("path", &k.Path)
	s.text("authKeyFile", &k.AuthKeyFile)
}
