package config

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// minimal is the shortest good file.
const minimal = `
listen: {address: "unix://etcd.sock"}
etcd: {endpoints: ["https://10.0.0.4:2379"]}
keks: {dev: {local: {keyFile: kek.key}}}
keyring: {name: my-cluster}
`

func TestParseFillsInDefaults(t *testing.T) {
	got, err := Parse([]byte(minimal), "/etc/etcdseal")
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listen: Listen{Address: "unix:///etc/etcdseal/etcd.sock"},
		Admin:  Admin{Address: "127.0.0.1:2381"},
		Etcd:   Etcd{Endpoints: []string{"https://10.0.0.4:2379"}, ProbeInterval: 5 * time.Second},
		KEKs:   map[string]KEK{"dev": {Local: &LocalKEK{KeyFile: "/etc/etcdseal/kek.key"}}},
		Rules: []Rule{{
			Prefix: "/registry/secrets/", KEK: "dev", Seal: true, Plaintext: "allow", OnUndecryptable: "fail",
		}},
		Keyring:       Keyring{Name: "my-cluster", Store: "etcd", Prefix: "/etcdseal/"},
		Limits:        Limits{MaxRequestBytes: 2097152, MemoryBytes: 268435456},
		Outage:        Outage{CheckInterval: time.Minute, DeniedGrace: 10 * time.Minute},
		Audit:         Audit{OnFailure: "fail"},
		Log:           Log{Level: "info"},
		ShutdownGrace: 5 * time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse differs (-want +got):\n%s", diff)
	}
}

func TestParseReadsEveryField(t *testing.T) {
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data, "/etc/etcdseal")
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listen: Listen{
			Address:   "0.0.0.0:2379",
			Advertise: []string{"https://etcdseal.example:2379", "unix:///run/etcdseal/etcd.sock"},
			TLS: ListenTLS{
				CertFile: "/etc/etcdseal/server.crt", KeyFile: "/etc/etcdseal/server.key",
				ClientCAFile: "/pki/ca.crt", AllowedNames: []string{"kube-apiserver", "etcdctl"},
			},
		},
		Admin: Admin{Address: "127.0.0.1:0"},
		Etcd: Etcd{
			Endpoints:     []string{"https://10.0.0.4:2379", "https://[::1]:2379", "https://etcd-2.example:1"},
			TLS:           EtcdTLS{CAFile: "/pki/etcd-ca.crt", CertFile: "/etc/etcdseal/client.crt", KeyFile: "/etc/etcdseal/client.key", ServerName: "etcd.internal"},
			Auth:          EtcdAuth{Username: "etcdseal", PasswordFile: "/etc/etcdseal/password"},
			ProbeInterval: 1500 * time.Millisecond,
			AllowClientCN: true,
		},
		KEKs: map[string]KEK{
			"dev": {Local: &LocalKEK{KeyFile: "/etc/etcdseal/kek.key"}},
			"old": {Local: &LocalKEK{KeyFile: "/etc/etcdseal/old.key"}},
			"prod": {AzureKeyVault: &AzureKEK{
				VaultURL: "https://h.managedhsm.sovcloud-api.fr", Key: "etcd",
				Credential: AzureCredential{
					Type: "clientCertificate", TenantID: "72f988bf-86f1-41af-91ab-2d7cd011db47", ClientID: "0a0a0a0a-1111-2222-3333-444444444444",
					CertificateFile: "/etc/etcdseal/app.pem", SendCertificateChain: true, AllowedTenants: []string{"0b0b0b0b-1111-2222-3333-444444444444", "*"},
				},
				AuthorityHost: "https://login.sovcloud-identity.fr", CAFile: "/etc/etcdseal/proxy-ca.pem", ProxyURL: "http://proxy.example:3128",
				PollInterval: 15 * time.Minute, TryTimeout: 3 * time.Second, Timeout: 7 * time.Second,
				Managed: true, KeyType: "RSA-HSM", KeySize: 4096, RotateAfterDays: 30,
			}},
			"identity": {AzureKeyVault: &AzureKEK{
				VaultURL: "https://v.vault.azure.net/", Key: "etcd", Address: "10.1.2.3:443",
				Credential:   AzureCredential{Type: "managedIdentity", ObjectID: "0b0b0b0b-1111-2222-3333-444444444444"},
				PollInterval: 5 * time.Minute, TryTimeout: 20 * time.Second, Timeout: 30 * time.Second,
			}},
			"workload": {AzureKeyVault: &AzureKEK{
				VaultURL: "https://v.vault.azure.net", Key: "etcd", Credential: AzureCredential{Type: "workloadIdentity", TokenFile: "/etc/etcdseal/token"},
				PollInterval: 5 * time.Minute, TryTimeout: 5 * time.Second, Timeout: 5 * time.Second,
				Managed: true, KeyType: "RSA", KeySize: 3072, RotateAfterDays: 90,
			}},
			"plugin": {KMSv2: &KMSv2KEK{
				Endpoint: "unix:///run/kms/plugin.sock", Timeout: 2500 * time.Millisecond, PollInterval: 10 * time.Minute,
			}},
		},
		Rules: []Rule{
			{Prefix: "/registry/secrets/", KEK: "dev", RecoveryKEKs: []string{"old"}, Seal: true, Plaintext: "deny", OnUndecryptable: "passthrough"},
			{Prefix: "/registry/configmaps/", KEK: "old", Seal: false, Plaintext: "allow", OnUndecryptable: "fail"},
		},
		Keyring:       Keyring{Name: "my-cluster", Store: "file", Path: "/var/lib/etcdseal/keyring.json", AuthKeyFile: "/etc/etcdseal/auth.key"},
		AllowMethods:  []string{"/etcdserverpb.KV/Example"},
		Limits:        Limits{MaxRequestBytes: 10485760, MemoryBytes: 1 << 30},
		Outage:        Outage{CheckInterval: 30 * time.Second, DeniedGrace: 5 * time.Minute, OfflineLimit: 72 * time.Hour},
		Audit:         Audit{File: "/etc/etcdseal/audit.jsonl", OnFailure: "continue"},
		Log:           Log{Level: "debug"},
		ShutdownGrace: 90 * time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse differs (-want +got):\n%s", diff)
	}
}

// TestParseReadsTheExample reads the example that others build on. Much of it is in
// braces and brackets, with colons in texts that have no quotes.
func TestParseReadsTheExample(t *testing.T) {
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data, "/etc/etcdseal")
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listen: Listen{
			Address: "127.0.0.1:2379",
			TLS:     ListenTLS{CertFile: "/etc/etcdseal/server.crt", KeyFile: "/etc/etcdseal/server.key", ClientCAFile: "/etc/etcdseal/ca.crt"},
		},
		Admin: Admin{Address: "127.0.0.1:2381"},
		Etcd:  Etcd{Endpoints: []string{"https://10.0.0.4:2379"}, ProbeInterval: 5 * time.Second},
		KEKs: map[string]KEK{
			"prod": {AzureKeyVault: &AzureKEK{
				VaultURL: "https://v.vault.azure.net", Key: "etcd", Credential: AzureCredential{Type: "workloadIdentity"},
				PollInterval: 5 * time.Minute, TryTimeout: 20 * time.Second, Timeout: 30 * time.Second,
			}},
			"plugin": {KMSv2: &KMSv2KEK{Endpoint: "unix:///run/kms.sock", Timeout: 3 * time.Second, PollInterval: time.Minute}},
			"dev":    {Local: &LocalKEK{KeyFile: "/etc/etcdseal/kek.key"}},
		},
		Rules:         []Rule{{Prefix: "/registry/secrets/", KEK: "prod", Seal: true, Plaintext: "allow", OnUndecryptable: "fail"}},
		Keyring:       Keyring{Name: "my-cluster", Store: "etcd", Prefix: "/etcdseal/"},
		Limits:        Limits{MaxRequestBytes: 2097152, MemoryBytes: 268435456},
		Outage:        Outage{CheckInterval: time.Minute, DeniedGrace: 10 * time.Minute},
		Audit:         Audit{OnFailure: "fail"},
		Log:           Log{Level: "info"},
		ShutdownGrace: 5 * time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse differs (-want +got):\n%s", diff)
	}
}

// TestParseReportsAllProblems compares the whole error for every file in
// testdata/bad with the text beside it.
func TestParseReportsAllProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding bad files: %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".want")
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(data, "/etc/etcdseal")
			if err == nil {
				t.Fatal("Parse succeeded")
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("error differs (-want +got):\n%s", diff)
			}
		})
	}
}

// TestParseKMSv2 covers the defaults of a plugin and the forms of its socket.
func TestParseKMSv2(t *testing.T) {
	for given, want := range map[string]string{
		"unix:///run/kms.sock": "unix:///run/kms.sock",
		"unix://kms.sock":      "unix:///etc/etcdseal/kms.sock",
		"unix://../x/kms.sock": "unix:///etc/x/kms.sock",
		"unix:///@kms":         "unix:///@kms",
	} {
		text := strings.Replace(minimal, "local: {keyFile: kek.key}", "kmsV2: {endpoint: "+strconv.Quote(given)+"}", 1)
		c, err := Parse([]byte(text), "/etc/etcdseal")
		if err != nil {
			t.Errorf("%s: %v", given, err)
			continue
		}
		wantKEK := KEK{KMSv2: &KMSv2KEK{Endpoint: want, Timeout: 3 * time.Second, PollInterval: time.Minute}}
		if diff := cmp.Diff(wantKEK, c.KEKs["dev"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", given, diff)
		}
	}
}

func TestParseRefusesHugeFile(t *testing.T) {
	_, err := Parse(make([]byte, maxFileBytes+1), "/")
	want := &Error{Problems: []Problem{{Text: "65537 bytes: more than 65536 are not read"}}}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("error differs (-want +got):\n%s", diff)
	}
}

func TestLoadChecksFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("kek.key", "")
	good := write("good.yaml", minimal)
	if _, err := Load(good); err != nil {
		t.Errorf("Load of a good file: %v", err)
	}
	bad := write("bad.yaml", `
listen: {address: "unix://missing/etcd.sock"}
etcd: {endpoints: ["https://10.0.0.4:2379"], tls: {caFile: .}}
keks: {dev: {local: {keyFile: none.key}}}
keyring: {name: my-cluster, store: file, path: kek.key/keyring.json}
`)
	_, err := Load(bad)
	var problems *Error
	if !errors.As(err, &problems) {
		t.Fatalf("Load returned %v, want an *Error", err)
	}
	want := bad + `: 4 problems
  listen.address (line 2): its directory cannot be used: stat DIR/missing: no such file or directory
  etcd.tls.caFile (line 3): DIR is not a regular file
  keks.dev.local.keyFile (line 4): stat DIR/none.key: no such file or directory
  keyring.path (line 5): DIR/kek.key is not a directory`
	if diff := cmp.Diff(strings.ReplaceAll(want, "DIR", dir), err.Error()); diff != "" {
		t.Errorf("error differs (-want +got):\n%s", diff)
	}
}

func TestLoadNamesUnreadableFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Load returned %v, want a missing file by its name", err)
	}
}

func TestPinnedNamesWhatNeedsRestart(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		c, err := Parse([]byte(text), "/")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := parse(minimal)
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", minimal, nil},
		{"rules", minimal + "rules: [{prefix: /a, seal: false}]\n", nil},
		{"log and grace", minimal + "log: {level: debug}\nshutdownGrace: 1s\n", []string{"log", "shutdownGrace"}},
		{"outage and audit", minimal + "outage: {deniedGrace: 1m}\naudit: {stdout: true}\n", []string{"outage", "audit"}},
		{"KEK", strings.Replace(minimal, "kek.key", "other.key", 1), []string{"keks"}},
		{"keyring and etcd", strings.NewReplacer("my-cluster", "x", "10.0.0.4", "10.0.0.5").Replace(minimal), []string{"etcd", "keyring"}},
	} {
		if diff := cmp.Diff(test.want, before.Pinned(parse(test.text))); diff != "" {
			t.Errorf("%s: Pinned differs (-want +got):\n%s", test.name, diff)
		}
	}
}

// Read gives what Load refuses if only files are missing.
func TestReadGoesOnWithoutFiles(t *testing.T) {
	for name, r := range map[string]struct {
		text   string
		config bool
		wrong  string
	}{
		"a file is missing":  {minimal, true, "keks.dev.local.keyFile"},
		"a field is unknown": {minimal + "more: 1\n", false, "more"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "etcdseal.yaml")
			if err := os.WriteFile(path, []byte(r.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Read(path)
			var wrong *Error
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), r.wrong) {
				t.Errorf("error %v, want one of %s", err, r.wrong)
			}
			if (c != nil) != r.config {
				t.Errorf("the configuration is %v", c)
			}
			if c, err := Load(path); c != nil || err == nil {
				t.Errorf("Load returned %v, %v", c, err)
			}
		})
	}
}
