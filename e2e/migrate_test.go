package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
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
	// migrateRate is how many values a second it writes while it is to be killed.
	migrateRate = "2000"
)

// migrateCount is how many secrets there are: E2E_SECRETS, or enough for a quick run.
func migrateCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("E2E_SECRETS")
	if text == "" {
		return 5000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 || n > 99999 {
		t.Fatalf("E2E_SECRETS is %q, want a number from 1000 to 99999", text)
	}
	return n
}

// TestMigrate seals the plaintext secrets of a cluster in use, killed on the way, seals
// them again under another DEK, and opens them for good, while kube-apiserver creates,
// updates and deletes secrets. No acknowledged write is lost, no stale value is read.
func TestMigrate(t *testing.T) {
	l := newLab(t, true)
	cfg := l.proxyConfig(t)
	cfg.Rules = []etcdseal.Rule{{Prefix: etcdseal.SecretsPrefix, Unsealed: true}}
	proxy := etcdseal.Start(t, cfg)
	api := apiserver.Start(t, l.apiConfig(proxy.Endpoint(), true)).Client()
	w := newMigrateWriter(t, l, api)
	count := migrateCount(t)
	l.copySecrets(t, api, count)

	w.pause(t, proxy, func(cfg *etcdseal.Config) { cfg.Rules = etcdseal.DefaultRules() })
	for kill := range migrateKills {
		l.killEncrypt(t, proxy, (kill+1)*count/(2*migrateKills))
	}
	proxy.Tool(t, "encrypt", "--yes", "--rate", "0", "--purge")
	if sealed, plain := l.countSecrets(t); sealed < count || plain != 0 {
		t.Errorf("%d secrets are sealed and %d are not, want at least %d and none", sealed, plain, count)
	}
	proxy.Tool(t, "verify")
	proxy.Tool(t, "verify", "--history")
	proxy.Tool(t, "verify", "--data-dir", l.etcd.SaveSnapshot(t))
	w.withoutEtcd(t, func() { // free pages and all
		proxy.Tool(t, "verify", "--data-dir", filepath.Join(l.etcd.DataDir(), "member", "snap", "db"))
	})
	l.checkDEKs(t)

	first := keysOf(etcd.ReadKeyring(t, l.raw, etcdseal.KeyringPrefix))
	// A proxy that starts makes a DEK of its own, so that none is left that seals with an older one.
	before := time.Now().UTC().Format(time.RFC3339)
	w.pause(t, proxy, func(*etcdseal.Config) {})
	proxy.Tool(t, "reencrypt", "--yes", "--rate", "0", "--older-than", before)
	for key, value := range etcd.Pairs(t, l.raw, etcdseal.SecretsPrefix) {
		if id, err := etcd.EnvelopeID(value); err != nil || first[id] {
			t.Fatalf("%s is under DEK %s, %v, want another one than before", key, id, err)
		}
	}
	proxy.Tool(t, "rotate", "--yes")

	w.pause(t, proxy, func(cfg *etcdseal.Config) {
		cfg.Rules = []etcdseal.Rule{{Prefix: etcdseal.SecretsPrefix, Unsealed: true}}
	})
	proxy.Tool(t, "decrypt", "--yes", "--rate", "0")
	if sealed, _ := l.countSecrets(t); sealed != 0 {
		t.Errorf("%d secrets are still sealed", sealed)
	}
	w.finish(t)
	if _, plain := l.countSecrets(t); plain != count+len(w.acked)+1 {
		t.Errorf("there are %d secrets, want %d, those of the writer and one", plain, count)
	}
}

func keysOf(keyring etcd.Keyring) map[string]bool {
	ids := make(map[string]bool)
	for id := range keyring {
		ids[id] = true
	}
	return ids
}

// copySecrets writes secrets to etcd as kube-apiserver has written one, under other names
// of the same length.
func (l *lab) copySecrets(t *testing.T, api *apiserver.Client, count int) {
	t.Helper()
	name := func(n int) string { return fmt.Sprintf("copy-%06d", n) }
	first := apiserver.NewSecret(migrated, name(0), l.secret(t, "copied", 200))
	if _, err := api.Create(call(t), apiserver.Secrets(migrated), first); err != nil {
		t.Fatalf("creating the secret to copy: %v", err)
	}
	folder := etcdseal.SecretsPrefix + migrated + "/"
	stored := etcd.Pairs(t, l.raw, folder+name(0))[folder+name(0)]
	if etcd.IsEnvelope(stored) || !bytes.Contains(stored, []byte(name(0))) {
		t.Fatal("the secret to copy is not stored as plaintext")
	}
	for n := 1; n <= count; {
		var puts []clientv3.Op
		for ; n <= count && len(puts) < 100; n++ {
			puts = append(puts, clientv3.OpPut(folder+name(n), string(bytes.ReplaceAll(stored, []byte(name(0)), []byte(name(n))))))
		}
		if _, err := l.raw.Txn(call(t)).Then(puts...).Commit(); err != nil {
			t.Fatalf("writing copies: %v", err)
		}
	}
}

// killEncrypt starts to encrypt and kills that when so many values are sealed.
func (l *lab) killEncrypt(t *testing.T, proxy *etcdseal.Proxy, sealed int) {
	t.Helper()
	tool := process.Start(t, process.Config{
		Path: filepath.Join(l.binaries, "etcdseal"), Args: []string{"encrypt", "--config", proxy.ConfigFile(), "--yes", "--rate", migrateRate},
		Log: process.NewLog(t, fmt.Sprintf("encrypt-%d", sealed)),
	})
	tool.WaitFor(t, settleLimit, "values to be sealed", func(context.Context) error {
		if now, _ := l.countSecrets(t); now < sealed {
			return fmt.Errorf("%d are", now)
		}
		return nil
	})
	tool.Kill(t)
	if _, plain := l.countSecrets(t); plain == 0 {
		t.Error("encrypt was done before it was killed, so that nothing is tested")
	}
}

// countSecrets counts what is stored under the rule.
func (l *lab) countSecrets(t *testing.T) (sealed, plain int) {
	t.Helper()
	for _, value := range etcd.Pairs(t, l.raw, etcdseal.SecretsPrefix) {
		if etcd.IsEnvelope(value) {
			sealed++
		} else {
			plain++
		}
	}
	return sealed, plain
}

// migrateWriter creates, updates, deletes and reads secrets of its own, one after the
// other, and knows what was acknowledged.
type migrateWriter struct {
	lab    *lab
	api    *apiserver.Client
	turn   sync.Mutex // held for each call, and while the proxy is away
	acked  map[string][]byte
	writes int
	random *rand.Rand
	stop   context.CancelFunc
	ended  chan error
}

func newMigrateWriter(t *testing.T, l *lab, api *apiserver.Client) *migrateWriter {
	t.Helper()
	if _, err := api.Create(call(t), apiserver.Namespaces, apiserver.NewNamespace(migrated)); err != nil {
		t.Fatalf("creating namespace: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &migrateWriter{
		lab: l, api: api, acked: make(map[string][]byte), random: rand.New(rand.NewPCG(1, 2)), stop: stop, ended: make(chan error, 1),
	}
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			err = w.write()
		}
		w.ended <- err
	}()
	t.Cleanup(stop)
	return w
}

// write reads one secret, compares it with what was acknowledged, and changes it.
func (w *migrateWriter) write() error {
	w.turn.Lock()
	defer w.turn.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	name := fmt.Sprintf("busy-%02d", w.random.IntN(20))
	there, err := w.check(ctx, name)
	if err != nil {
		return err
	}
	path := apiserver.Secrets(migrated)
	if there && w.random.IntN(5) == 0 {
		if err := w.api.Delete(ctx, path, name); err != nil {
			return fmt.Errorf("deleting %s: %w", name, err)
		}
		delete(w.acked, name)
		return nil
	}
	w.writes++
	value := fmt.Appendf(nil, "%s %s %d", w.lab.marker, name, w.writes)
	if there {
		_, err = w.api.Update(ctx, path, apiserver.NewSecret(migrated, name, value))
	} else {
		_, err = w.api.Create(ctx, path, apiserver.NewSecret(migrated, name, value))
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	w.acked[name] = value
	return nil
}

// check compares a secret with what was acknowledged, and reports whether it is there.
func (w *migrateWriter) check(ctx context.Context, name string) (bool, error) {
	want, there := w.acked[name]
	got, err := w.api.Get(ctx, apiserver.Secrets(migrated), name)
	var failed *apiserver.StatusError
	switch {
	case !there && errors.As(err, &failed) && failed.Code == http.StatusNotFound:
		return false, nil
	case err != nil:
		return there, fmt.Errorf("reading %s, which is there: %t: %w", name, there, err)
	case !there:
		return there, fmt.Errorf("%s is back after it was deleted", name)
	case !bytes.Equal(got.Data["value"], want):
		return there, fmt.Errorf("%s does not have the value that was acknowledged", name)
	}
	return true, nil
}

// pause starts the proxy anew with another configuration while nothing is written.
func (w *migrateWriter) pause(t *testing.T, proxy *etcdseal.Proxy, change func(*etcdseal.Config)) {
	t.Helper()
	w.turn.Lock()
	defer w.turn.Unlock()
	proxy.Change(t, change)
	proxy.Restart(t)
	poll.Until(t, settleLimit, "kube-apiserver to work again", w.api.Ready)
}

// withoutEtcd does something while etcd is stopped and nothing is written.
func (w *migrateWriter) withoutEtcd(t *testing.T, do func()) {
	t.Helper()
	w.turn.Lock()
	defer w.turn.Unlock()
	w.lab.etcd.Stop(t)
	do()
	w.lab.etcd.Run(t)
	poll.Until(t, settleLimit, "kube-apiserver to work again", w.api.Ready)
}

// finish ends the writer and checks everything that it wrote.
func (w *migrateWriter) finish(t *testing.T) {
	t.Helper()
	w.stop()
	if err := <-w.ended; err != nil {
		t.Fatalf("after %d writes: %v", w.writes, err)
	}
	for name := range w.acked {
		if _, err := w.check(call(t), name); err != nil {
			t.Error(err)
		}
	}
	if w.writes == 0 {
		t.Error("nothing was written meanwhile")
	}
	t.Logf("%d writes meanwhile", w.writes)
}
