package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/poll"
	"github.com/etcdseal/etcdseal/e2e/process"
)

const (
	migrated = "migrated"
	// migrateKills is how often encrypt is killed on its way.
	migrateKills = 3
	// migrateLimit bounds one verb, on a machine with other work.
	migrateLimit = 3 * time.Minute
	probe        = "probe"
)

// migrateCount is how many secrets there are: E2E_SECRETS, or enough for a quick run.
func migrateCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("E2E_SECRETS")
	if text == "" {
		return 2000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 || n > 999_999 {
		t.Fatalf("E2E_SECRETS is %q, want a number from 1000 to 999999", text)
	}
	return n
}

// migration is a cluster whose secrets are taken from one form to another.
type migration struct {
	*lab
	proxy *etcdseal.Proxy
	api   *apiserver.Client
	w     *migrateWriter
	count int
	copy  []byte // as kube-apiserver stored copy 0, without etcdseal
}

// TestMigrate seals the plaintext secrets of a cluster in use, killed on the way, proves
// that no plaintext is left, seals them again under another DEK, rotates, and opens them
// for good, while kube-apiserver creates, updates and deletes secrets all the while. No
// acknowledged write is lost, no stale value is read.
func TestMigrate(t *testing.T) {
	l := newLab(t, true)
	l.etcd.Stop(t)
	l.etcd.UseFlags("--max-wals=1", "--snapshot-count=100") // old segments are dropped early
	l.etcd.Run(t)
	cfg := l.proxyConfig(t)
	cfg.Rules = sealing(false)
	m := &migration{lab: l, proxy: etcdseal.Start(t, cfg), count: migrateCount(t)}
	m.api = apiserver.Start(t, l.apiConfig(m.proxy.Endpoint(), true)).Client()
	m.w = newMigrateWriter(t, l, m.api)
	m.copySecrets(t)

	m.seal(t, true)
	for kill := range migrateKills {
		m.killEncrypt(t, (kill+1)*m.count/(2*migrateKills))
	}
	m.tool(t, "encrypt", "--yes", "--rate", "0", "--purge")
	if sealed, plain := m.countSecrets(t); sealed < m.count || plain != 0 {
		t.Errorf("%d secrets are sealed and %d are not, want at least %d and none", sealed, plain, m.count)
	}
	m.verifyAll(t)
	m.checkListed(t)
	l.checkDEKs(t)

	m.reencrypt(t)
	m.tool(t, "rotate", "--yes")
	m.tool(t, "verify")

	m.seal(t, false)
	m.tool(t, "decrypt", "--yes", "--rate", "0")
	m.w.finish(t)
	m.checkOpened(t)
}

func sealing(seal bool) []etcdseal.Rule {
	return []etcdseal.Rule{{Prefix: etcdseal.SecretsPrefix, Unsealed: !seal}}
}

// tool runs a verb that has to end well.
func (m *migration) tool(t *testing.T, args ...string) string {
	t.Helper()
	start := time.Now()
	out := process.RunTo(t, migrateLimit, 0, filepath.Join(m.binaries, "etcdseal"), append(args, "--config", m.proxy.ConfigFile())...)
	t.Logf("etcdseal %s (%s):\n%s", strings.Join(args, " "), time.Since(start).Round(time.Millisecond), out)
	return out
}

func (m *migration) key(name string) string { return etcdseal.SecretsPrefix + migrated + "/" + name }

// seal has the proxy write in another form from now on, without an interruption.
func (m *migration) seal(t *testing.T, seal bool) {
	t.Helper()
	m.proxy.Reload(t, func(cfg *etcdseal.Config) { cfg.Rules = sealing(seal) })
	n := 0
	poll.Until(t, settleLimit, fmt.Sprintf("what is written to be sealed: %t", seal), func(ctx context.Context) error {
		n++
		secret := apiserver.NewSecret(migrated, probe, fmt.Appendf(nil, "%s %t %d", m.marker, seal, n))
		if _, err := m.api.Update(ctx, apiserver.Secrets(migrated), secret); err != nil {
			return err
		}
		if got := etcd.IsEnvelope(etcd.Pairs(t, m.raw, m.key(probe))[m.key(probe)]); got != seal {
			return fmt.Errorf("it is: %t", got)
		}
		return nil
	})
}

func copyName(n int) string { return fmt.Sprintf("copy-%06d", n) }

// copySecrets writes secrets to etcd as kube-apiserver has written one, under other names
// of the same length.
func (m *migration) copySecrets(t *testing.T) {
	t.Helper()
	for name, value := range map[string][]byte{copyName(0): m.secret(t, "copied", 200), probe: m.secret(t, probe, 20)} {
		if _, err := m.api.Create(call(t), apiserver.Secrets(migrated), apiserver.NewSecret(migrated, name, value)); err != nil {
			t.Fatalf("creating %s: %v", name, err)
		}
	}
	m.copy = etcd.Pairs(t, m.raw, m.key(copyName(0)))[m.key(copyName(0))]
	if etcd.IsEnvelope(m.copy) || !bytes.Contains(m.copy, []byte(copyName(0))) {
		t.Fatal("the secret to copy is not stored as plaintext")
	}
	for n := 1; n <= m.count; {
		var puts []clientv3.Op
		for ; n <= m.count && len(puts) < 100; n++ {
			puts = append(puts, clientv3.OpPut(m.key(copyName(n)), string(m.copyOf(n))))
		}
		if _, err := m.raw.Txn(call(t)).Then(puts...).Commit(); err != nil {
			t.Fatalf("writing copies: %v", err)
		}
	}
}

func (m *migration) copyOf(n int) []byte {
	return bytes.ReplaceAll(m.copy, []byte(copyName(0)), []byte(copyName(n)))
}

// killEncrypt starts to encrypt and kills that when the n-th copy is sealed.
func (m *migration) killEncrypt(t *testing.T, n int) {
	t.Helper()
	rate := m.count / 10 // so that it does not get to the end before it is killed
	tool := process.Start(t, process.Config{
		Path: filepath.Join(m.binaries, "etcdseal"), Args: []string{"encrypt", "--config", m.proxy.ConfigFile(), "--yes", "--rate", fmt.Sprint(rate)},
		Log: process.NewLog(t, fmt.Sprintf("encrypt-%d", n)),
	})
	key := m.key(copyName(n))
	tool.WaitFor(t, migrateLimit, copyName(n)+" to be sealed", func(context.Context) error {
		if !etcd.IsEnvelope(etcd.Pairs(t, m.raw, key)[key]) {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	tool.Kill(t)
	sealed, plain := m.countSecrets(t)
	t.Logf("encrypt was killed with %d secrets sealed and %d not", sealed, plain)
	if plain == 0 {
		t.Error("encrypt was done before it was killed, so that nothing is tested")
	}
}

// countSecrets counts what is stored under the rule.
func (m *migration) countSecrets(t *testing.T) (sealed, plain int) {
	t.Helper()
	for _, value := range etcd.Pairs(t, m.raw, etcdseal.SecretsPrefix) {
		if etcd.IsEnvelope(value) {
			sealed++
		} else {
			plain++
		}
	}
	return sealed, plain
}

// checkListed lists all copies through kube-apiserver while they are sealed.
func (m *migration) checkListed(t *testing.T) {
	t.Helper()
	first, err := m.api.Get(call(t), apiserver.Secrets(migrated), copyName(0))
	if err != nil {
		t.Fatalf("reading the secret that was copied: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), migrateLimit)
	defer cancel()
	all, _, err := m.api.List(ctx, apiserver.Secrets(migrated), 500, nil)
	if err != nil {
		t.Fatalf("listing secrets: %v", err)
	}
	listed := make(map[string]bool)
	for _, item := range all.Items {
		if name := item.Metadata.Name; strings.HasPrefix(name, "copy-") {
			listed[name] = bytes.Equal(item.Data["value"], first.Data["value"])
			if !listed[name] {
				t.Fatalf("%s is listed with another value", name)
			}
		}
	}
	if len(listed) != m.count+1 {
		t.Errorf("%d copies are listed, want %d", len(listed), m.count+1)
	}
}

// verifyAll proves that no plaintext is left: live, in history, in a snapshot and in the
// member's files, of which the log has to be followed by enough others first.
func (m *migration) verifyAll(t *testing.T) {
	t.Helper()
	m.tool(t, "verify")
	m.tool(t, "verify", "--history")
	m.tool(t, "verify", "--data-dir", m.etcd.SaveSnapshot(t))

	folder := filepath.Join(m.etcd.DataDir(), "member", "wal")
	first := segments(t, folder)[0]
	out := process.RunTo(t, migrateLimit, 1, filepath.Join(m.binaries, "etcdseal"), "verify", "--data-dir", copyFile(t, first), "--config", m.proxy.ConfigFile())
	if !strings.Contains(out, "write request") || strings.Contains(out, m.marker) {
		t.Error("verify does not find what is in the log, or shows it")
	}
	filler := strings.Repeat("f", 1<<20)
	for n := range 140 { // two segments are full then, and a third one is begun
		if _, err := m.raw.Put(call(t), "/filler", filler); err != nil {
			t.Fatalf("filling the log after %d: %v", n, err)
		}
	}
	for range 250 { // more than two of etcd's own snapshots apart
		if _, err := m.raw.Put(call(t), "/filler", ""); err != nil {
			t.Fatal(err)
		}
	}
	m.w.interrupt(t, func() { // it drops segments when it starts
		m.etcd.Stop(t)
		m.w.waitLost(t)
		m.etcd.Run(t)
	})
	poll.Until(t, settleLimit, "etcd to drop "+filepath.Base(first), func(context.Context) error {
		if all := segments(t, folder); all[0] <= first {
			return fmt.Errorf("there are %q", all)
		}
		return nil
	})
	m.w.interrupt(t, func() {
		m.etcd.Stop(t)
		m.tool(t, "verify", "--data-dir", m.etcd.DataDir())
		m.etcd.Run(t)
	})
	if file, holds := m.etcd.DataHolds(t, m.marker); holds {
		t.Errorf("%s holds plaintext, which verify has not found", file)
	}
}

func segments(t *testing.T, folder string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(folder, "*.wal"))
	if err != nil || len(all) == 0 {
		t.Fatalf("there is no log in %s: %v", folder, err)
	}
	return all
}

// copyFile returns a copy of a file, since the original is in use.
func copyFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// reencrypt takes every value off the DEKs that there are. A proxy that starts makes a DEK
// of its own, so that none is left that seals with an older one.
func (m *migration) reencrypt(t *testing.T) {
	t.Helper()
	old := etcd.ReadKeyring(t, m.raw, etcdseal.KeyringPrefix)
	before := time.Now().UTC().Format(time.RFC3339)
	m.w.interrupt(t, func() { m.proxy.Restart(t) })
	m.tool(t, "reencrypt", "--yes", "--rate", "0", "--older-than", before)
	for key, value := range etcd.Pairs(t, m.raw, etcdseal.SecretsPrefix) {
		id, err := etcd.EnvelopeID(value)
		if _, is := old[id]; err != nil || is {
			t.Fatalf("%s is under DEK %s, %v, want another one than before", key, id, err)
		}
	}
}

// checkOpened demands that everything is as if it had never been sealed.
func (m *migration) checkOpened(t *testing.T) {
	t.Helper()
	stored := etcd.Pairs(t, m.raw, etcdseal.SecretsPrefix)
	for n := range m.count + 1 {
		if !bytes.Equal(stored[m.key(copyName(n))], m.copyOf(n)) {
			t.Fatalf("%s is not what was written", copyName(n))
		}
	}
	for key, value := range stored {
		if etcd.IsEnvelope(value) {
			t.Errorf("%s is still sealed", key)
		}
	}
	if want := m.count + 2 + m.w.there(); len(stored) != want {
		t.Errorf("there are %d secrets, want %d", len(stored), want)
	}
}
