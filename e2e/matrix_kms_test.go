package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// slowness is how long a vault was seen to take for each call, for hours.
const slowness = 18 * time.Second

// emulated is a kind of KEK with two KEKs "main" and "second", and what can befall main.
type emulated struct {
	keks map[string]string // for the configuration
	// faults break main; mend undoes whichever it was. gone is main's end, for good.
	faults map[string]func()
	mend   func()
	gone   func()
	// rotate gives main another version, nil where a KEK has but one, and returns a text
	// that records wrapped by it hold.
	rotate func() string
}

// newVaults is two emulated Key Vaults behind one address.
func newVaults(t *testing.T) *emulated {
	t.Helper()
	var later atomic.Int64 // by how much the vaults' clock is ahead
	server, err := emulator.New(emulator.Config{Clock: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	if err != nil {
		t.Fatalf("making emulator: %v", err)
	}
	t.Cleanup(func() { _ = server.Close() })
	const secret = "matrix-client-password"
	server.AddApp(emulator.App{ClientID: "app", Secret: secret})
	address, err := server.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatalf("starting emulator: %v", err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca.pem": server.CA(), "client.secret": []byte(secret)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatalf("writing %s: %v", name, err)
		}
	}
	e := &emulated{keks: map[string]string{}}
	vaults := map[string]*emulator.Vault{}
	for _, name := range []string{"main", "second"} {
		vaults[name] = server.AddVault(emulator.VaultConfig{Host: name + ".vault.azure.net", PurgeProtection: true})
		vaults[name].CreateKey("etcd", "RSA", 0)
		e.keks[name] = fmt.Sprintf("{azureKeyVault: {vaultURL: %q, key: etcd, address: %q, authorityHost: %q, caFile: %q, "+
			"credential: {type: clientSecret, tenantID: %s, clientID: app, secretFile: %q}}}", vaults[name].URL(), address,
			"https://"+address.String(), filepath.Join(dir, "ca.pem"), emulator.DefaultTenant, filepath.Join(dir, "client.secret"))
	}
	key := vaults["main"]
	inject := func(f emulator.Fault) func() {
		return func() {
			f.Vault = "main.vault.azure.net"
			server.Inject(f)
			f.BeforeLogin = true
			server.Inject(f)
		}
	}
	undo := func() {}
	e.faults = map[string]func(){
		faultDown:      inject(emulator.Fault{Drop: true}),
		faultThrottled: inject(emulator.Throttled("", "1")),
		faultDisabled: func() {
			key.SetEnabled("etcd", "", false)
			undo = func() { key.SetEnabled("etcd", "", true) }
		},
		faultDeleted: func() {
			key.Delete("etcd")
			undo = func() { later.Add(int64(time.Minute)); key.Recover("etcd") }
		},
		faultSlow: func() {
			for _, op := range []string{emulator.OpWrap, emulator.OpUnwrap} {
				server.Inject(emulator.Fault{Op: op, Vault: "main.vault.azure.net", Delay: slowness})
			}
		},
	}
	e.mend = func() { server.ClearFaults(); undo() }
	e.gone = func() { server.RemoveVault("main.vault.azure.net") }
	e.rotate = func() string { return key.Rotate("etcd") }
	return e
}

// newPlugins is two KMS v2 plugins on sockets of their own.
func newPlugins(t *testing.T) *emulated {
	t.Helper()
	e := &emulated{keks: map[string]string{}}
	plugins, stops := map[string]*kmstest.Plugin{}, map[string]func(){}
	dir, err := os.MkdirTemp("", "kms") // a short path: sockets' are limited
	if err != nil {
		t.Fatalf("making folder: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	serve := func(name string) {
		stop, err := kmstest.Serve(plugins[name], filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("starting plugin: %v", err)
		}
		stops[name] = stop
	}
	for _, name := range []string{"main", "second"} {
		plugins[name] = kmstest.New(name, "key-1")
		serve(name)
		t.Cleanup(func() { stops[name]() })
		e.keks[name] = fmt.Sprintf("{kmsV2: {endpoint: %q}}", "unix://"+filepath.Join(dir, name))
	}
	answer := func(fail func(context.Context) error) func() {
		return func() {
			plugins["main"].Hook(kmstest.Hooks{
				Encrypt: func(ctx context.Context, _ *service.EncryptResponse) error { return fail(ctx) },
				Decrypt: func(ctx context.Context, _ *service.DecryptRequest, _ *[]byte) error { return fail(ctx) },
			})
		}
	}
	refuse := func(code codes.Code) func() {
		return answer(func(context.Context) error { return status.Error(code, "told to") })
	}
	undo := func() {}
	e.faults = map[string]func(){
		faultDown: func() {
			stops["main"]()
			undo = func() { serve("main") }
		},
		faultThrottled: refuse(codes.ResourceExhausted),
		faultDisabled:  refuse(codes.FailedPrecondition),
		faultDeleted:   refuse(codes.NotFound),
		faultSlow: answer(func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(slowness):
				return nil
			}
		}),
	}
	e.mend = func() { plugins["main"].Hook(kmstest.Hooks{}); undo() }
	e.gone = func() { stops["main"]() }
	version := 1
	e.rotate = func() string {
		version++
		id := fmt.Sprintf("key-%d", version)
		plugins["main"].Rotate(id)
		return id
	}
	return e
}

// newFiles is two local KEKs.
func newFiles(t *testing.T, binaries string) *emulated {
	t.Helper()
	e := &emulated{keks: map[string]string{}}
	files := map[string]string{}
	for _, name := range []string{"main", "second"} {
		files[name] = etcdseal.NewKEK(t, binaries)
		e.keks[name] = fmt.Sprintf("{local: {keyFile: %q}}", files[name])
	}
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatalf("moving KEK file: %v", err)
		}
	}
	lose := func() { move(files["main"], files["main"]+".away") }
	e.faults = map[string]func(){faultDown: lose, faultDeleted: lose}
	e.mend = func() { move(files["main"]+".away", files["main"]) }
	e.gone = lose
	return e
}
