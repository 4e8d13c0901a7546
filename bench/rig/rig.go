// Package rig starts everything that a benchmark of the etcd level needs: one etcd with and without TLS, and what is put in front of it.
//
// All of it listens on loopback addresses, keeps its files in one directory, and is gone after Close. Processes also end when the benchmark is killed.
package rig

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
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

// Config says what to start.
type Config struct {
	Binaries Binaries
	Dir      string    // parent of the scratch directory; empty means the system's
	Seal     bool      // whether any etcdseal will be started, so that a KEK is needed
	Profiles string    // where an etcdseal built for it writes its profiles; empty means that it does not
	Stderr   io.Writer // of tools that fail
}

// Rig is one etcd and everything that was started in front of it. It is used by one goroutine.
type Rig struct {
	Etcd     *child.Process
	Plain    string // etcd's host:port without TLS
	Secured  string // etcd's host:port with TLS and client certificates
	Direct   *grpc.ClientConn
	Dir      string // scratch directory
	Binaries Binaries

	profiles  string
	pki       *pki
	kek       string // key file of the local KEK; empty without etcdseal
	processes []*child.Process
}

// New starts etcd in a fresh directory. Close must be called even after an error, unless the rig is nil.
func New(ctx context.Context, cfg Config) (*Rig, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "etcdseal-bench-")
	if err != nil {
		return nil, fmt.Errorf("making scratch directory: %w", err)
	}
	r := &Rig{Binaries: cfg.Binaries, Dir: dir, profiles: cfg.Profiles}
	if r.pki, err = newPKI(dir, time.Now()); err != nil {
		return r, err
	}
	if err := r.startEtcd(ctx); err != nil {
		return r, err
	}
	if cfg.Seal {
		if err := r.newKEK(ctx, cfg.Stderr); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Close stops every child, the last started first, and removes the scratch directory.
func (r *Rig) Close() error {
	var errs []error
	if r.Direct != nil {
		errs = append(errs, r.Direct.Close())
	}
	for i := len(r.processes) - 1; i >= 0; i-- {
		errs = append(errs, r.processes[i].Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(r.Dir))...)
}

// start runs a program whose end is the rig's.
func (r *Rig) start(cfg child.Config) (*child.Process, error) {
	cfg.LogDir = r.Dir
	p, err := child.Start(cfg)
	if err != nil {
		return nil, err
	}
	r.processes = append(r.processes, p)
	return p, nil
}

func (r *Rig) startEtcd(ctx context.Context) error {
	var peer string
	for _, address := range []*string{&r.Plain, &r.Secured, &peer} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return err
		}
	}
	clients := "http://" + r.Plain + ",https://" + r.Secured
	p, err := r.start(child.Config{Name: "etcd", Path: r.Binaries.Etcd, Args: []string{
		"--name=bench", "--data-dir=" + filepath.Join(r.Dir, "data"), "--unsafe-no-fsync", "--log-level=warn",
		"--quota-backend-bytes=" + strconv.Itoa(8<<30), "--listen-client-urls=" + clients, "--advertise-client-urls=" + clients,
		"--listen-peer-urls=http://" + peer, "--initial-advertise-peer-urls=http://" + peer, "--initial-cluster=bench=http://" + peer,
		"--cert-file=" + r.pki.serverCert, "--key-file=" + r.pki.serverKey, "--trusted-ca-file=" + r.pki.ca, "--client-cert-auth",
	}})
	if err != nil {
		return err
	}
	r.Etcd = p
	if r.Direct, err = grpc.NewClient(r.Plain, DialOptions(nil)...); err != nil {
		return fmt.Errorf("making client of etcd: %w", err)
	}
	return serving(ctx, p, r.Direct)
}

// Compact drops etcd's history and waits until it is gone from the disk, so that no target always works on the larger one.
func (r *Rig) Compact(ctx context.Context) error {
	kv := pb.NewKVClient(r.Direct)
	now, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("bench")})
	if err != nil {
		return fmt.Errorf("reading revision: %w", err)
	}
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("bench")}); err != nil { // so that there is something to compact in rounds of reads
		return fmt.Errorf("writing a key: %w", err)
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: now.Header.Revision, Physical: true}); err != nil {
		return fmt.Errorf("compacting etcd: %w", err)
	}
	return nil
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

// ClientTLS is the configuration of a client with a certificate; nil when no TLS is wanted.
func (r *Rig) ClientTLS(secured bool) *tls.Config {
	if !secured {
		return nil
	}
	return r.pki.client
}

// DialOptions are plain text without a configuration. Messages may be as large as etcd makes them; connections that idle stay.
func DialOptions(config *tls.Config) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if config != nil {
		transport = credentials.NewTLS(config)
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(transport), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)), grpc.WithIdleTimeout(0)}
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
