package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/bench/child"
)

const (
	prefix       = "/registry/secrets/"
	batch        = 100 // values of a transaction, as migrate has them
	readyTimeout = time.Minute
)

// binaries are the programs that are measured.
type binaries struct{ etcd, etcdseal string }

// prepare builds what was not given on the command line.
func prepare(ctx context.Context, o options, stderr io.Writer) (b binaries, err error) {
	b = binaries{o.etcd, o.etcdseal}
	for _, program := range []struct {
		path      *string
		name, pkg string
	}{{&b.etcd, "etcd", "go.etcd.io/etcd/server/v3"}, {&b.etcdseal, "etcdseal", "github.com/etcdseal/etcdseal/cmd/etcdseal"}} {
		if *program.path != "" {
			continue
		}
		if *program.path, err = filepath.Abs(filepath.Join(o.bin, program.name)); err != nil {
			return b, fmt.Errorf("finding %s: %w", o.bin, err)
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", *program.path, program.pkg)
		cmd.Stderr = stderr
		// The go command removes its own scratch directory when it is interrupted, not when it is killed.
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		cmd.WaitDelay = 10 * time.Second
		if err := cmd.Run(); err != nil {
			return b, fmt.Errorf("building %s (run the benchmark inside the checkout, or give the binary by its flag): %w", program.pkg, err)
		}
	}
	return b, nil
}

// rig is an empty etcd and a configuration of etcdseal for it. It is used by one goroutine.
type rig struct {
	binaries
	dir     string
	etcd    *child.Process
	direct  *clientv3.Client
	config  string // file
	address string // where a proxy listens
	admin   string
}

// with measures with a new rig.
func (b binaries) with(ctx context.Context, o options, measure func(context.Context, *rig, options) ([]figure, error)) (_ []figure, err error) {
	dir, err := os.MkdirTemp(o.dir, "etcdseal-migration-")
	if err != nil {
		return nil, fmt.Errorf("making scratch directory: %w", err)
	}
	r := &rig{binaries: b, dir: dir}
	defer func() {
		if r.direct != nil {
			err = errors.Join(err, r.direct.Close())
		}
		err = errors.Join(err, r.stopEtcd(), os.RemoveAll(dir))
	}()
	if err := r.startEtcd(ctx); err != nil {
		return nil, err
	}
	return measure(ctx, r, o)
}

func (r *rig) stopEtcd() error {
	if r.etcd == nil {
		return nil
	}
	etcd := r.etcd
	r.etcd = nil
	return etcd.Stop()
}

func (r *rig) startEtcd(ctx context.Context) (err error) {
	var client, peer string
	for _, address := range []*string{&client, &peer, &r.address, &r.admin} {
		if *address, err = freeAddress(); err != nil {
			return err
		}
	}
	r.etcd, err = child.Start(child.Config{Name: "etcd", Path: r.binaries.etcd, LogDir: r.dir, Args: []string{
		"--name=bench", "--data-dir=" + r.dataDir(), "--unsafe-no-fsync", "--log-level=warn", "--quota-backend-bytes=" + strconv.Itoa(16<<30),
		"--listen-client-urls=http://" + client, "--advertise-client-urls=http://" + client,
		"--listen-peer-urls=http://" + peer, "--initial-advertise-peer-urls=http://" + peer, "--initial-cluster=bench=http://" + peer,
	}})
	if err != nil {
		return err
	}
	if r.direct, err = dial(client); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if _, err := r.direct.Get(ready, "x"); err != nil {
		return fmt.Errorf("waiting for etcd: %w", errors.Join(err, r.etcd.Err()))
	}
	kek := filepath.Join(r.dir, "kek.key")
	if _, err := r.verb(ctx, 0, "keyring", "new-kek", "--out", kek); err != nil {
		return err
	}
	r.config = filepath.Join(r.dir, "config.yaml")
	text := fmt.Sprintf("listen: {address: %q, insecure: true}\nadmin: {address: %q}\netcd: {endpoints: [%q]}\nkeks: {bench: {local: {keyFile: %q}}}\n"+
		"rules: [{prefix: %q, kek: bench}]\nkeyring: {name: bench}\n", r.address, r.admin, "http://"+client, kek, prefix)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing configuration: %w", err)
	}
	return nil
}

func (r *rig) dataDir() string { return filepath.Join(r.dir, "data") }

func dial(address string) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("dialing %s: %w", address, err)
	}
	return c, nil
}

// ended is how a verb ended.
type ended struct {
	out     []byte
	seconds float64
	peak    int64 // bytes of memory
}

// verb runs a verb of etcdseal to its end.
func (r *rig) verb(ctx context.Context, status int, args ...string) (ended, error) {
	cmd := exec.CommandContext(ctx, r.binaries.etcdseal, args...)
	var out, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failure
	start := time.Now()
	err := cmd.Run()
	e := ended{out: out.Bytes(), seconds: time.Since(start).Seconds()}
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status {
		return e, fmt.Errorf("running etcdseal %v: %v, want exit status %d: %s", args, err, status, failure.Bytes())
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		e.peak = usage.Maxrss << 10
	}
	return e, nil
}

// encrypt seals everything, as fast as it can, and demands that it was so many values.
func (r *rig) encrypt(ctx context.Context, values int) (ended, error) {
	e, err := r.verb(ctx, 0, "encrypt", "--config", r.config, "--yes", "--rate", "0", "-o", "json")
	if err != nil {
		return e, err
	}
	var result struct {
		Changed int     `json:"changed"`
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal(e.out, &result); err != nil {
		return e, fmt.Errorf("reading the result of encrypt: %w", err)
	}
	if result.Changed != values {
		return e, fmt.Errorf("reading the result of encrypt: %d values were sealed, want %d", result.Changed, values)
	}
	e.seconds = result.Seconds // without the process's start
	return e, nil
}

// serve runs the proxy and waits until it is ready.
func (r *rig) serve(ctx context.Context) (*child.Process, error) {
	p, err := child.Start(child.Config{Name: "etcdseal", Path: r.binaries.etcdseal, Args: []string{"serve", "--config", r.config}, LogDir: r.dir})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if answer, err := http.Get("http://" + r.admin + "/readyz"); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for etcdseal: %w", errors.Join(ctx.Err(), p.Err(), p.Stop()))
		}
	}
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
