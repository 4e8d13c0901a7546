package doctor

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek/etcdstore"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/migrate"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// prefix is of the only rule of a lab's configuration.
const prefix = "/registry/secrets/"

// lab is a real etcd of one member, and somebody who asks it.
type lab struct {
	*testing.T
	dir      string
	endpoint string
	server   *embed.Etcd
	client   *clientv3.Client // the test's own
}

func newLab(t *testing.T, change ...func(*embed.Config)) *lab {
	t.Helper()
	root, err := os.MkdirTemp("", "doctor") // shorter than t.TempDir, for a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	l := &lab{T: t, dir: root, endpoint: "unix://" + filepath.Join(root, "s.sock")}
	c := embed.NewConfig()
	c.Dir = filepath.Join(root, "data")
	client, peer := parseURL(t, l.endpoint), url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.InitialClusterToken = root // so that each lab's cluster has an id of its own
	c.UnsafeNoFsync = true
	c.BcryptCost = 4 // the least: passwords here are no secrets
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	for _, f := range change {
		f(c)
	}
	if l.server, err = embed.StartEtcd(c); err != nil {
		t.Fatalf("starting etcd: %v", err)
	}
	t.Cleanup(l.server.Close)
	select {
	case <-l.server.Server.ReadyNotify():
	case err := <-l.server.Err():
		t.Fatalf("starting etcd: %v", err)
	}
	if c.ListenClientUrls[0].Scheme == "https" {
		l.endpoint = "https://" + l.server.Clients[0].Addr().String()
		return l
	}
	if l.client, err = migrate.Dial(migrate.DialConfig{Endpoints: []string{l.endpoint}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.client.Close() })
	return l
}

func parseURL(t *testing.T, text string) url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return *u
}

func (l *lab) put(key, value string) {
	l.Helper()
	if _, err := l.client.Put(l.Context(), key, value); err != nil {
		l.Fatalf("putting %s: %v", key, err)
	}
}

// patient is an etcdseal in front of the lab's etcd, with which nothing is wrong. change
// gets its configuration before anything is opened.
func (l *lab) patient(change ...func(*config.Config)) Config {
	l.Helper()
	return open(l.T, l.dir, settings(l.T, l.dir, l.endpoint), change...)
}

// settings is a configuration with which nothing is wrong.
func settings(t *testing.T, dir string, endpoints ...string) *config.Config {
	t.Helper()
	text := "listen: {address: \"unix://l.sock\"}\netcd: {endpoints: [\"" + strings.Join(endpoints, `", "`) + "\"]}\nkeks: {k: {local: {keyFile: kek.key}}, r: {local: {keyFile: r.key}}}\n" +
		"rules: [{prefix: " + prefix + ", kek: k, recoveryKEKs: [r]}]\nkeyring: {name: test}\n"
	c, err := config.Parse([]byte(text), dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// open opens what a configuration names; KEKs are fakes.
func open(t *testing.T, dir string, c *config.Config, change ...func(*config.Config)) Config {
	t.Helper()
	for _, f := range change {
		f(c)
	}
	file := filepath.Join(dir, "etcdseal.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := c.Etcd
	pool, err := upstream.New(upstream.Config{
		Endpoints: e.Endpoints, TLS: upstream.TLS{CAFile: e.TLS.CAFile, CertFile: e.TLS.CertFile, KeyFile: e.TLS.KeyFile, ServerName: e.TLS.ServerName},
		Auth: upstream.Auth{Username: e.Auth.Username, PasswordFile: e.Auth.PasswordFile}, AllowClientCN: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	client, err := migrate.Dial(migrate.DialConfig{Endpoints: e.Endpoints, Credentials: pool.Credentials(), Tokens: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	store, err := etcdstore.Dial(etcdstore.Config{Endpoints: e.Endpoints, Credentials: pool.Credentials(), Tokens: pool, Prefix: c.Keyring.Prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	p := Config{File: file, Config: c, Etcd: pool, Client: client, Store: store, KEKs: map[string]Key{}, Host: Host{Known: true}}
	for name := range c.KEKs {
		p.KEKs[name] = Key{KEK: kektest.NewFake(name, "1")}
	}
	return p
}

// fake returns a KEK of a patient.
func fake(p Config, name string) *kektest.Fake { return p.KEKs[name].KEK.(*kektest.Fake) }

// finds says whether there is a finding of a level, all of whose texts hold these.
func finds(found []Finding, area Area, level Level, texts ...string) bool {
	return slices.ContainsFunc(found, func(f Finding) bool {
		all := f.Subject + "\n" + f.Found + "\n" + f.Do
		return f.Area == area && f.Level == level && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(all, text) })
	})
}

// wants checks that there is a finding, and that one which is no OK says what to do.
func wants(t *testing.T, found []Finding, area Area, level Level, texts ...string) {
	t.Helper()
	if !finds(found, area, level, texts...) {
		t.Errorf("no finding %s %s with %q:\n%s", area, level, texts, shown(found))
	}
}

// wantsNot checks that there is none.
func wantsNot(t *testing.T, found []Finding, area Area, level Level, texts ...string) {
	t.Helper()
	if finds(found, area, level, texts...) {
		t.Errorf("there is a finding %s %s with %q:\n%s", area, level, texts, shown(found))
	}
}

func shown(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		b.WriteString("  " + string(f.Area) + " " + string(f.Level) + " " + f.Subject + ": " + f.Found + " -> " + f.Do + "\n")
	}
	return b.String()
}

// run makes one check.
func run(t *testing.T, c Config, check func(*doctor) check) []Finding {
	t.Helper()
	d := &doctor{Config: c}
	d.complete()
	var n notes
	check(d)(t.Context(), &n)
	return n.findings
}

// runAfterMembers makes one check that needs to know who can be asked.
func runAfterMembers(t *testing.T, c Config, check func(*doctor) check) []Finding {
	t.Helper()
	d := &doctor{Config: c}
	d.complete()
	var n notes
	d.members(t.Context(), &notes{})
	check(d)(t.Context(), &n)
	return n.findings
}
