// Package keys measures what data keys cost that a slow Key Vault wraps: reading values under many of them after a start, and rotating the key that
// wraps them. The vault is the project's emulator.
package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

const (
	// vaultLatency is how long the emulated Key Vault takes for every call.
	vaultLatency = 50 * time.Millisecond
	vaultKey     = "etcd"
	vaultSecret  = "bench-client-secret"

	// keysValueSize is that of the values under many DEKs, in bytes: how large they are makes no difference to keys.
	keysValueSize = 128
	keysBatch     = 100  // values of one Txn
	keysPage      = 1000 // values of one page of a list
	keysReaders   = 8    // clients that list at once

	// ColdDEKs and RotatedDEKs are the data keys of the two measurements.
	ColdDEKs    = 10
	RotatedDEKs = 20
)

// vault is a Key Vault and the values that were sealed under DEKs which it wraps. The values and the keyring have prefixes of their own.
type vault struct {
	rig     *rig.Rig
	name    string
	server  *emulator.Server
	key     *emulator.Vault
	address string
}

// startVault starts an emulated Key Vault with one key.
func startVault(ctx context.Context, r *rig.Rig, name string) (*vault, error) {
	server, err := emulator.New(emulator.Config{})
	if err != nil {
		return nil, fmt.Errorf("making emulator: %w", err)
	}
	v := &vault{rig: r, name: name, server: server, key: server.AddVault(emulator.VaultConfig{Host: "bench.vault.azure.net", PurgeProtection: true})}
	v.key.CreateKey(vaultKey, "RSA", 0)
	server.AddApp(emulator.App{ClientID: "bench", Secret: vaultSecret})
	address, err := server.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting emulator: %w", err), server.Close())
	}
	v.address = address.String()
	for file, data := range map[string][]byte{v.file("ca.pem"): server.CA(), v.file("secret"): []byte(vaultSecret)} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("writing for the emulator: %w", err), server.Close())
		}
	}
	return v, nil
}

func (v *vault) file(name string) string { return filepath.Join(v.rig.Dir, v.name+"-"+name) }

func (v *vault) prefix() string { return "/" + v.name + "/" }

// start starts an etcdseal that seals what is under the prefix.
func (v *vault) start(ctx context.Context) (*rig.Seal, error) {
	return v.rig.SealWith(ctx, v.name, func(address, admin string) string {
		return fmt.Sprintf("listen: {address: %q, insecure: true}\nadmin: {address: %q}\netcd: {endpoints: [%q]}\n", address, admin, "http://"+v.rig.Plain) +
			fmt.Sprintf("keks: {prod: {azureKeyVault: {vaultURL: %q, key: %s, address: %q, authorityHost: %q, caFile: %q, ", v.key.URL(), vaultKey, v.address,
				"https://"+v.address, v.file("ca.pem")) +
			fmt.Sprintf("credential: {type: clientSecret, tenantID: %s, clientID: bench, secretFile: %q}}}}\n", emulator.DefaultTenant, v.file("secret")) +
			fmt.Sprintf("rules: [{prefix: %q, kek: prod}]\nkeyring: {name: %s, store: etcd, prefix: \"/keyring-%[2]s/\"}\n", v.prefix(), v.name)
	})
}

// fill seals values under as many DEKs: a process seals under one of its own making.
func (v *vault) fill(ctx context.Context, values, deks int) error {
	for d := range deks {
		s, err := v.start(ctx)
		if err != nil {
			return err
		}
		if err := v.put(ctx, s.Address, d, values/deks); err != nil {
			return err
		}
		if err := s.Stop(); err != nil {
			return err
		}
	}
	return nil
}

func (v *vault) put(ctx context.Context, address string, d, values int) error {
	conn, err := grpc.NewClient(address, rig.DialOptions(nil)...)
	if err != nil {
		return fmt.Errorf("making client: %w", err)
	}
	defer conn.Close()
	value := make([]byte, keysValueSize)
	for i := 0; i < values; i += keysBatch {
		var txn pb.TxnRequest
		for n := i; n < min(i+keysBatch, values); n++ {
			put := &pb.PutRequest{Key: fmt.Appendf(nil, "%s%03d/%08d", v.prefix(), d, n), Value: value}
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		}
		if _, err := pb.NewKVClient(conn).Txn(ctx, &txn, grpc.WaitForReady(true)); err != nil {
			return fmt.Errorf("writing values: %w", err)
		}
	}
	return nil
}

// list reads all values in pages, as many clients at once, and returns how long the last of them took.
func (v *vault) list(ctx context.Context, address string, values int) (time.Duration, error) {
	var all sync.WaitGroup
	errs := make([]error, keysReaders)
	start := time.Now()
	for i := range errs {
		all.Go(func() { errs[i] = v.listOnce(ctx, address, values) })
	}
	all.Wait()
	return time.Since(start), errors.Join(errs...)
}

func (v *vault) listOnce(ctx context.Context, address string, values int) error {
	conn, err := grpc.NewClient(address, rig.DialOptions(nil)...)
	if err != nil {
		return fmt.Errorf("making client: %w", err)
	}
	defer conn.Close()
	key, end, n := []byte(v.prefix()), []byte("/"+v.name+"0"), 0
	for {
		page, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: key, RangeEnd: end, Limit: keysPage}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("listing: %w", err)
		}
		for _, kv := range page.Kvs {
			if len(kv.Value) != keysValueSize {
				return fmt.Errorf("listing: %s has %d bytes, want %d", kv.Key, len(kv.Value), keysValueSize)
			}
		}
		if n += len(page.Kvs); !page.More {
			break
		}
		key = append(page.Kvs[len(page.Kvs)-1].Key, 0)
	}
	if n != values {
		return fmt.Errorf("listing: %d values, want %d", n, values)
	}
	return nil
}

// slow has every call to the vault take its latency from now on, and forgets those before.
func (v *vault) slow() {
	v.server.Inject(emulator.Fault{Delay: vaultLatency})
	v.server.ForgetCalls()
}

// operations are the calls that use the key, in their order.
func (v *vault) operations() []emulator.Call {
	return slices.DeleteFunc(v.server.Calls(), func(c emulator.Call) bool { return c.Op != emulator.OpWrap && c.Op != emulator.OpUnwrap })
}

// ColdStart lists everything through an etcdseal that has just started, and again.
func ColdStart(ctx context.Context, r *rig.Rig, values int, rep *report.Report, stderr io.Writer) (err error) {
	v, err := startVault(ctx, r, "cold")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.server.Close()) }()
	fmt.Fprintf(stderr, "sealing %d values under %d DEKs, to be listed by %d clients after a start\n", values, ColdDEKs, keysReaders)
	if err := v.fill(ctx, values, ColdDEKs); err != nil {
		return err
	}
	v.slow()
	s, err := v.start(ctx)
	if err != nil {
		return err
	}
	cold, err := v.list(ctx, s.Address, values)
	if err != nil {
		return err
	}
	// A DEK that the process made for itself meanwhile was unwrapped once, as the proof of its wrapping.
	made := v.server.Count(emulator.OpWrap)
	unwraps := v.server.Count(emulator.OpUnwrap) - made
	warm, err := v.list(ctx, s.Address, values)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "first list %v, second list %v\n", cold.Round(time.Millisecond), warm.Round(time.Millisecond))
	rep.AddFigure(fmt.Sprintf("cold start, %d values under %d DEKs, %d clients: unwraps of them", values, ColdDEKs, keysReaders), float64(unwraps), "", report.Exactly, ColdDEKs)
	rep.AddFigure("cold start: first list beyond 1.2 times the second", max(0, (cold-warm*6/5).Seconds()), "s", report.AtMost, 1)
	return s.Stop()
}

// Rotation has every DEK wrapped by a new version of the KEK.
func Rotation(ctx context.Context, r *rig.Rig, values int, rep *report.Report, stderr io.Writer) (err error) {
	v, err := startVault(ctx, r, "rotation")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.server.Close()) }()
	fmt.Fprintf(stderr, "sealing %d values under %d DEKs, to be rotated\n", values, RotatedDEKs)
	if err := v.fill(ctx, values, RotatedDEKs); err != nil {
		return err
	}
	kv := pb.NewKVClient(r.Direct)
	before, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("bench")})
	if err != nil {
		return fmt.Errorf("reading etcd's revision: %w", err)
	}
	current := v.key.Rotate(vaultKey)
	v.slow()
	start := time.Now()
	tool := exec.CommandContext(ctx, r.Binaries.Etcdseal, "rotate", "--config", v.file("config.yaml"), "--yes")
	if out, err := tool.CombinedOutput(); err != nil {
		return fmt.Errorf("rotating: %w: %s", err, out)
	}
	elapsed := time.Since(start)
	operations, rewrapped := len(v.operations()), 0
	for _, call := range v.operations() {
		if call.Op == emulator.OpWrap && call.Version == current {
			rewrapped++
		}
	}
	left, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(v.prefix()), RangeEnd: []byte("/rotation0"), CountOnly: true})
	if err != nil {
		return fmt.Errorf("counting values: %w", err)
	}
	if left.Count != int64(values) {
		return fmt.Errorf("counting values: %d after the rotation, want %d", left.Count, values)
	}
	changed, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(v.prefix()), RangeEnd: []byte("/rotation0"), MinModRevision: before.Header.Revision + 1, KeysOnly: true})
	if err != nil {
		return fmt.Errorf("looking for values that were written: %w", err)
	}
	rep.AddFigure(fmt.Sprintf("rotation, %d values under %d DEKs: DEKs wrapped by the new version", values, RotatedDEKs), float64(rewrapped), "", report.Exactly, RotatedDEKs)
	rep.AddFigure("rotation: key operations", float64(operations), "", report.AtMost, 3*RotatedDEKs)
	rep.AddFigure("rotation: values written", float64(len(changed.Kvs)), "", report.Exactly, 0)
	rep.AddFigure("rotation: time", elapsed.Seconds(), "s", report.AtMost, 5)
	return nil
}
