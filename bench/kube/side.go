package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/etcdseal/etcdseal/bench/child"
)

// side is one kube-apiserver and everything below it.
type side struct {
	stage   *stage
	name    string
	dir     string
	holds   string // how the values of secrets begin in its etcd
	etcd    *child.Process
	between *child.Process // etcdseal or the KMS v2 plugin; nil when there is neither
	server  *child.Process // kube-apiserver
	direct  *grpc.ClientConn
	client  *client
	secrets int // how many of the numbered ones there are
	probes  int // how often the secret of that name was written
	frozen  bool

	etcdAddress, etcdMetrics string // host:port with TLS; a URL without
	storage                  string // where kube-apiserver finds its etcd, a URL
	encryption               string // its encryption configuration, a file; empty for none
	address                  string // of kube-apiserver, host:port
}

// processes are all of the side, those that others depend on first.
func (s *side) processes() []*child.Process {
	var out []*child.Process
	for _, p := range []*child.Process{s.etcd, s.between, s.server} {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

// start starts everything, waits until kube-apiserver is ready and makes what calls need.
func (s *side) start(ctx context.Context) error {
	if err := s.startEtcd(); err != nil {
		return err
	}
	s.storage = "https://" + s.etcdAddress
	var err error
	switch s.name {
	case SideKMS:
		err = s.startPlugin(newAESKey)
	case SideSeal, SideTLS:
		err = s.startSeal(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.startServer(ctx); err != nil {
		return err
	}
	return s.prepare(ctx)
}

// close ends every process. kube-apiserver is killed: it would go on for seconds, and its data is thrown away.
func (s *side) close() error {
	var errs []error
	if s.client != nil {
		s.client.close()
	}
	if s.direct != nil {
		errs = append(errs, s.direct.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Kill())
	}
	for _, p := range []*child.Process{s.between, s.etcd} {
		if p == nil {
			continue
		}
		if s.frozen && p.Err() == nil {
			errs = append(errs, p.Thaw())
		}
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

func (s *side) startEtcd() error {
	var peer, metrics string
	for _, address := range []*string{&s.etcdAddress, &peer, &metrics} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return err
		}
	}
	s.etcdMetrics = "http://" + metrics
	c, clients, peers := s.stage.certs, "https://"+s.etcdAddress, "http://"+peer
	var err error
	s.etcd, err = launch(s.dir, "etcd", s.stage.cfg.Etcd, "--name=bench", "--data-dir="+filepath.Join(s.dir, "data"), "--unsafe-no-fsync", "--log-level=warn",
		"--quota-backend-bytes="+strconv.Itoa(8<<30), "--listen-client-urls="+clients, "--advertise-client-urls="+clients, "--listen-metrics-urls="+s.etcdMetrics,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=bench="+peers,
		"--cert-file="+c.ServerCert, "--key-file="+c.ServerKey, "--trusted-ca-file="+c.CA, "--client-cert-auth")
	if err != nil {
		return err
	}
	s.direct, err = grpc.NewClient(s.etcdAddress, grpc.WithTransportCredentials(credentials.NewTLS(c.Client)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.WaitForReady(true)))
	if err != nil {
		return fmt.Errorf("making client of etcd: %w", err)
	}
	return nil
}

// startSeal starts etcdseal in front of etcd, with a local KEK, and has kube-apiserver use it: by a unix socket, or by TCP with TLS.
func (s *side) startSeal(ctx context.Context) error {
	c := s.stage.certs
	s.storage = "unix://" + filepath.Join(s.dir, "etcd.sock")
	listen := fmt.Sprintf("{address: %q}", s.storage)
	if s.name == SideTLS {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		s.storage = "https://" + address
		listen = fmt.Sprintf("{address: %q, tls: {certFile: %q, keyFile: %q, clientCAFile: %q}}", address, c.ServerCert, c.ServerKey, c.CA)
	}
	admin, err := freeAddress()
	if err != nil {
		return err
	}
	kek := filepath.Join(s.dir, "kek.key")
	if out, err := exec.CommandContext(ctx, s.stage.cfg.Etcdseal, "keyring", "new-kek", "--out", kek).CombinedOutput(); err != nil {
		return fmt.Errorf("making a local KEK: %w: %s", err, out)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\n", listen)
	fmt.Fprintf(&b, "etcd: {endpoints: [%q], tls: {caFile: %q, certFile: %q, keyFile: %q}}\n", "https://"+s.etcdAddress, c.CA, c.ClientCert, c.ClientKey)
	fmt.Fprintf(&b, "admin: {address: %q}\nkeks: {bench: {local: {keyFile: %q}}}\n", admin, kek)
	fmt.Fprintf(&b, "rules: [{prefix: %q, kek: bench}]\nkeyring: {name: bench, store: etcd}\n", secretsPrefix)
	file := filepath.Join(s.dir, "etcdseal.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing configuration of etcdseal: %w", err)
	}
	if s.between, err = launch(s.dir, "etcdseal", s.stage.cfg.Etcdseal, "serve", "--config", file); err != nil {
		return err
	}
	return waitUntil(ctx, "etcdseal to be ready", s.between, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("answered %s", response.Status)
		}
		return nil
	})
}

const (
	// waitLimit bounds every wait for a process.
	waitLimit = 2 * time.Minute
	// waitStep is the time between two looks.
	waitStep = 5 * time.Millisecond
)

// waitUntil looks again and again until look succeeds, the process ends or the limit is reached.
func waitUntil(ctx context.Context, what string, p *child.Process, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	tick := time.NewTicker(waitStep)
	defer tick.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Exited():
			return p.Err()
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, ctx.Err(), err)
		}
	}
}
