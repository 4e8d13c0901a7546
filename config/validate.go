package config

import (
	"regexp"
	"slices"
	"strings"
)

// nameForm is the form of the keyring's and the KEKs' names: they go into
// records and metric labels.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// nameFormText says nameForm in words.
const nameFormText = "want 1 to 128 of the characters A-Z, a-z, 0-9, dot, underscore and dash"

// validate reports what is missing or contradictory and fills in the defaults
// that depend on other fields.
func (c *Config) validate(r *report, methods []string) {
	c.Listen.validate(r)
	c.validateAdmin(r)
	c.Etcd.validate(r)
	if len(c.KEKs) == 0 {
		r.missing("keks", "name at least one, as in dev: {local: {keyFile: kek.key}}")
	}
	c.validateKEKs(r)
	c.Keyring.validate(r)
	c.validateRules(r)
	c.validateMethods(r, methods)
}

func (c *Config) validateKEKs(r *report) {
	for _, name := range c.kekNames() {
		plugin, path := c.KEKs[name].KMSv2, "keks."+name+".kmsV2.endpoint"
		if plugin == nil {
			continue
		}
		if plugin.Endpoint == "" {
			r.missing(path, "name the plugin's socket, as in unix:///run/kms.sock")
		} else if wrong := checkPlugin(plugin.Endpoint); wrong != "" {
			r.add(path, "%s", wrong)
		}
	}
}

// methodForm is the form of a gRPC method's full name: escapes and queries, by
// which a known method would go by another name, do not fit it.
var methodForm = regexp.MustCompile(`^/[A-Za-z_][A-Za-z0-9_.]*/[A-Za-z_][A-Za-z0-9_]*$`)

// validateMethods reports methods that cannot be allowed; known ones need not be.
func (c *Config) validateMethods(r *report, known []string) {
	for i, method := range c.AllowMethods {
		path := index("allowMethods", i)
		if !methodForm.MatchString(method) {
			r.add(path, "want the exact full name of a method, as in /etcdserverpb.KV/Example")
		} else if slices.Contains(c.AllowMethods[:i], method) {
			r.add(path, "given twice: keep one")
		} else if slices.Contains(known, method) {
			r.add(path, "etcdseal knows %s and treats it by the rules, which nothing here can change: leave it out", method)
		}
	}
}

func (l *Listen) validate(r *report) {
	for i, url := range l.Advertise {
		path := index("listen.advertise", i)
		if wrong := checkEndpoint(url); wrong != "" {
			r.add(path, "%s", wrong)
		} else if slices.Contains(l.Advertise[:i], url) {
			r.add(path, "given twice: keep one")
		}
	}
	hasTLS := l.TLS.CertFile != "" || l.TLS.KeyFile != "" || l.TLS.ClientCAFile != "" || len(l.TLS.AllowedNames) > 0
	if l.Address == "" {
		r.missing("listen.address", "write host:port or unix:// and a path, as in 127.0.0.1:2379")
	} else if path, ok := socketPath(l.Address); ok {
		l.validateSocket(r, path, hasTLS)
		return
	} else if wrong := checkListen(l.Address); wrong != "" {
		r.add("listen.address", "%s", wrong)
	}
	if hasTLS {
		l.validateTLS(r)
	} else if !l.Insecure && !r.isUnread("listen.tls") && !r.isUnread("listen.insecure") {
		r.add("listen", "neither TLS nor insecure: set tls with certFile, keyFile and clientCAFile, or insecure: true to let everyone in who can reach the address, on loopback too")
	}
}

func (l *Listen) validateSocket(r *report, path string, hasTLS bool) {
	if wrong := checkSocket(path); wrong != "" {
		r.add("listen.address", "%s", wrong)
	}
	if hasTLS {
		r.add("listen.tls", "not on a unix socket, which only its owner can open: leave it out")
	}
	if l.Insecure {
		r.add("listen.insecure", "says nothing about a unix socket, which only its owner can open: leave it out")
	}
}

func (l *Listen) validateTLS(r *report) {
	if l.TLS.CertFile == "" {
		r.missing("listen.tls.certFile", "name the proxy's certificate (PEM)")
	}
	if l.TLS.KeyFile == "" {
		r.missing("listen.tls.keyFile", "name the private key of the proxy's certificate (PEM)")
	}
	switch {
	case l.TLS.ClientCAFile == "" && !l.Insecure:
		r.missing("listen.tls.clientCAFile", "name the authorities of the clients' certificates (PEM), or set listen.insecure: true to accept clients without one")
	case l.TLS.ClientCAFile != "" && l.Insecure:
		r.add("listen.insecure", "contradicts listen.tls.clientCAFile: keep one of them")
	}
	if l.TLS.ClientCAFile == "" && len(l.TLS.AllowedNames) > 0 {
		r.add("listen.tls.allowedNames", "needs clientCAFile: without client certificates there are no names")
	}
	for i, name := range l.TLS.AllowedNames {
		path := index("listen.tls.allowedNames", i)
		if name == "" {
			r.add(path, "empty: write a common name or DNS name")
		} else if slices.Contains(l.TLS.AllowedNames[:i], name) {
			r.add(path, "given twice: keep one")
		}
	}
}

func (c *Config) validateAdmin(r *report) {
	wrong := checkListen(c.Admin.Address)
	if wrong != "" {
		r.add("admin.address", "want host:port, as in %s", DefaultAdminAddress)
	} else if c.Admin.Address == c.Listen.Address && !strings.HasSuffix(c.Admin.Address, ":0") {
		r.add("admin.address", "the same as listen.address: take another port")
	}
}

func (e *Etcd) validate(r *report) {
	if len(e.Endpoints) == 0 {
		r.missing("etcd.endpoints", "list the URLs of etcd's members, as in https://10.0.0.4:2379")
	}
	secure := 0
	for i, endpoint := range e.Endpoints {
		path := index("etcd.endpoints", i)
		if strings.HasPrefix(endpoint, "https://") {
			secure++
		}
		if wrong := checkEndpoint(endpoint); wrong != "" {
			r.add(path, "%s", wrong)
		} else if slices.Contains(e.Endpoints[:i], endpoint) {
			r.add(path, "given twice: keep one")
		}
	}
	if secure > 0 && secure < len(e.Endpoints) {
		r.add("etcd.endpoints", "some are https and some are not: write all the same way, since one connection may move to another endpoint")
	}
	if e.TLS != (EtcdTLS{}) && len(e.Endpoints) > 0 && secure == 0 {
		r.add("etcd.tls", "no endpoint is https: leave it out, or write https:// in etcd.endpoints")
	}
	if e.AllowClientCN && e.TLS.CertFile == "" && e.TLS.KeyFile == "" {
		r.add("etcd.allowClientCN", "needs etcd.tls.certFile: without a certificate there is no common name")
	}
	bothOrNone(r, "etcd.tls", "certFile", e.TLS.CertFile, "keyFile", e.TLS.KeyFile)
	bothOrNone(r, "etcd.auth", "username", e.Auth.Username, "passwordFile", e.Auth.PasswordFile)
}

// bothOrNone reports the one of two fields that is missing while the other is
// given.
func bothOrNone(r *report, section, nameA, a, nameB, b string) {
	switch {
	case a == "" && b != "":
		r.missing(section+"."+nameA, "%s needs it", nameB)
	case a != "" && b == "":
		r.missing(section+"."+nameB, "%s needs it", nameA)
	}
}

func (k *Keyring) validate(r *report) {
	if k.Name == "" {
		r.missing("keyring.name", "choose a name for this cluster's keyring and never change it, since it is bound into every data key")
	} else if !nameForm.MatchString(k.Name) {
		r.add("keyring.name", nameFormText)
	}
	if k.Store == StoreFile {
		if k.Path == "" {
			r.missing("keyring.path", "store: file needs the file of the records")
		}
		if k.Prefix != "" {
			r.add("keyring.prefix", "only with store: etcd: leave it out")
		}
		return
	}
	if k.Path != "" {
		r.add("keyring.path", "only with store: file: leave it out")
	}
	if k.Prefix == "" {
		k.Prefix = DefaultKeyringPrefix
	}
	if !strings.HasSuffix(k.Prefix, "/") {
		r.add("keyring.prefix", "must end with a slash, so that it reserves nothing else")
	}
}

func (c *Config) validateRules(r *report) {
	if c.Rules == nil {
		c.defaultRules(r)
		return
	}
	prefixes := map[string]int{}
	for i := range c.Rules {
		rule, path := &c.Rules[i], index("rules", i)
		if rule.Prefix == "" {
			r.missing(path+".prefix", "write how the keys begin, as in %s", DefaultRulePrefix)
		} else if first, twice := prefixes[rule.Prefix]; twice {
			r.add(path+".prefix", "the same as that of %s: keep one of them", index("rules", first))
		} else {
			prefixes[rule.Prefix] = i
		}
		c.validateReserved(r, path+".prefix", rule.Prefix)
		c.validateRuleKEKs(r, path, rule)
		if !rule.Seal && rule.Plaintext == PlaintextDeny {
			r.add(path+".plaintext", "deny contradicts seal: false, which writes plaintext: set one of them otherwise")
		}
	}
}

// defaultRules sets the one rule of a file without rules, if it is clear what
// that rule would say.
func (c *Config) defaultRules(r *report) {
	rule := defaultRule()
	rule.Prefix = DefaultRulePrefix
	switch known := c.kekNames(); len(known) {
	case 0: // reported already
	case 1:
		rule.KEK = known[0]
	default:
		r.missing("rules", "there are several KEKs (%s): say which one seals %s", strings.Join(known, ", "), DefaultRulePrefix)
	}
	c.Rules = []Rule{rule}
	c.validateReserved(r, "rules", rule.Prefix)
}

// validateReserved reports a rule whose keys would include records of the
// keyring, which are never sealed.
func (c *Config) validateReserved(r *report, path, prefix string) {
	reserved := c.Keyring.Prefix
	if prefix == "" || reserved == "" || c.Keyring.Store != StoreEtcd {
		return
	}
	if strings.HasPrefix(prefix, reserved) || strings.HasPrefix(reserved, prefix) {
		r.add(path, "%q overlaps the keyring's reserved prefix %q: change one of them", prefix, reserved)
	}
}

// validateRuleKEKs fills in the only KEK and reports names that do not exist.
func (c *Config) validateRuleKEKs(r *report, path string, rule *Rule) {
	known := c.kekNames()
	switch {
	case rule.KEK == "" && len(known) == 1:
		rule.KEK = known[0]
	case rule.KEK == "" && len(known) > 1:
		r.missing(path+".kek", "there are several: %s", strings.Join(known, ", "))
	case rule.KEK != "" && len(known) > 0 && !slices.Contains(known, rule.KEK):
		r.add(path+".kek", "no such KEK under keks: known: %s", strings.Join(known, ", "))
	}
	for i, name := range rule.RecoveryKEKs {
		at := index(path+".recoveryKEKs", i)
		switch {
		case len(known) > 0 && !slices.Contains(known, name):
			r.add(at, "no such KEK under keks: known: %s", strings.Join(known, ", "))
		case name == rule.KEK:
			r.add(at, "the same as kek: name another one, which opens when that one cannot")
		case slices.Contains(rule.RecoveryKEKs[:i], name):
			r.add(at, "given twice: keep one")
		}
	}
}

// kekNames returns the names of the KEKs in alphabetical order.
func (c *Config) kekNames() []string {
	names := make([]string, 0, len(c.KEKs))
	for name := range c.KEKs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
