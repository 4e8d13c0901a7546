package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/etcdseal/etcdseal/bench/child"
)

// readyTimeout bounds the wait for a child to serve.
const readyTimeout = time.Minute

// rig is one etcd and everything that was started in front of it. It is used by one goroutine.
type rig struct {
	bin       binaries
	dir       string
	pki       *pki
	kek       string // key file of the local KEK; empty without etcdseal
	plain     string // etcd's host:port without TLS
	secured   string // etcd's host:port with TLS and client certificates
	direct    *grpc.ClientConn
	processes []*child.Process
}

// newRig starts etcd in a fresh directory. close must be called even after an error.
func newRig(ctx context.Context, o options, bin binaries, stderr io.Writer) (*rig, error) {
	dir, err := os.MkdirTemp(o.dir, "etcdseal-bench-")
	if err != nil {
		return nil, fmt.Errorf("making scratch directory: %w", err)
	}
	r := &rig{bin: bin, dir: dir}
	if r.pki, err = newPKI(dir, time.Now()); err != nil {
		return r, err
	}
	if err := r.startEtcd(ctx); err != nil {
		return r, err
	}
	if o.needsSeal() {
		if err := r.newKEK(ctx, stderr); err != nil {
			return r, err
		}
	}
	return r, nil
}

// close stops every child, the last started first, and removes the scratch directory.
func (r *rig) close() error {
	var errs []error
	if r.direct != nil {
		errs = append(errs, r.direct.Close())
	}
	for i := len(r.processes) - 1; i >= 0; i-- {
		errs = append(errs, r.processes[i].Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// start runs a program whose end is the rig's.
func (r *rig) start(name, path string, args ...string) (*child.Process, error) {
	p, err := child.Start(child.Config{Name: name, Path: path, Args: args, LogDir: r.dir})
	if err != nil {
		return nil, err
	}
	r.processes = append(r.processes, p)
	return p, nil
}

func (r *rig) startEtcd(ctx context.Context) error {
	var peer string
	for _, address := range []*string{&r.plain, &r.secured, &peer} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return err
		}
	}
	clients := "http://" + r.plain + ",https://" + r.secured
	p, err := r.start("etcd", r.bin.etcd, "--name=bench", "--data-dir="+filepath.Join(r.dir, "data"), "--unsafe-no-fsync", "--log-level=warn",
		"--quota-backend-bytes="+strconv.Itoa(8<<30), "--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer, "--initial-cluster=bench=http://"+peer,
		"--cert-file="+r.pki.serverCert, "--key-file="+r.pki.serverKey, "--trusted-ca-file="+r.pki.ca, "--client-cert-auth")
	if err != nil {
		return err
	}
	if r.direct, err = grpc.NewClient(r.plain, dialOptions(nil)...); err != nil {
		return fmt.Errorf("making client of etcd: %w", err)
	}
	return serving(ctx, p, r.direct)
}

// startTCPCopy returns the address of a bare TCP copy in front of etcd.
func (r *rig) startTCPCopy(ctx context.Context) (*child.Process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	p, err := r.start("tcpcopy", r.bin.self, "tcpcopy", address, r.plain)
	return p, address, err
}

// startGRPCProxy returns the address of etcd's own proxy in front of etcd.
func (r *rig) startGRPCProxy(ctx context.Context) (*child.Process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	p, err := r.start("grpcproxy", r.bin.etcd, "grpc-proxy", "start", "--endpoints="+(&url.URL{Scheme: "http", Host: r.plain}).String(),
		"--listen-addr="+address, "--data-dir="+filepath.Join(r.dir, "grpcproxy"))
	return p, address, err
}

// serving waits until a linearizable read succeeds, or the process ends.
func serving(ctx context.Context, p *child.Process, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if p != nil {
		go func() {
			select {
			case <-p.Exited():
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("bench")}, grpc.WaitForReady(true))
	if p != nil && p.Err() != nil {
		return p.Err()
	}
	if err != nil {
		return fmt.Errorf("waiting for the first read: %w", err)
	}
	return nil
}

// dialOptions are plain text without a configuration. Messages may be as large as etcd makes them.
func dialOptions(config *tls.Config) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if config != nil {
		transport = credentials.NewTLS(config)
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(transport), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20))}
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
