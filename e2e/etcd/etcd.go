// Package etcd runs real etcd servers of one member, and reads what they hold
// without going through the proxy under test.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/e2e/binaries"
	"github.com/etcdseal/etcdseal/e2e/pki"
	"github.com/etcdseal/etcdseal/e2e/poll"
	"github.com/etcdseal/etcdseal/e2e/process"
)

const (
	startLimit   = 60 * time.Second
	stopLimit    = 60 * time.Second
	commandLimit = 60 * time.Second
	dialLimit    = 10 * time.Second
	memberName   = "e2e"
)

// Config says how to run a server. Binaries must be set.
type Config struct {
	// Binaries is the folder that holds etcd, etcdctl and etcdutl.
	Binaries string
	// Version is "3.6" or "3.5" for an earlier etcd; empty is the newest, which
	// etcdctl and etcdutl always are.
	Version string
	// Authority, when set, makes the server speak TLS and ask for client
	// certificates; without it the server speaks plain text.
	Authority *pki.Authority
	// Flags are added to the server's command line.
	Flags []string
}

// program is the name of the server's binary.
func (c Config) program() string {
	if c.Version == "" {
		return binaries.Etcd
	}
	return binaries.Etcd + "-" + c.Version
}

// Server is one etcd member on loopback. It keeps its addresses over restarts.
// Its methods are for the test's own goroutine, unless they say otherwise.
type Server struct {
	owner   testing.TB
	cfg     Config
	dir     string
	dataDir string
	client  string
	peer    string
	server  pki.Files
	admin   pki.Files
	log     *process.Log
	process *process.Process
	// restores counts restored snapshots: each gets a new data folder.
	restores int
}

// Start starts a server with an empty store and waits until it answers. It is
// killed when t ends, however often it was started again by then.
func Start(t testing.TB, cfg Config) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{
		owner:   t,
		cfg:     cfg,
		dir:     dir,
		dataDir: filepath.Join(dir, "data"),
		client:  process.FreeAddress(t),
		peer:    process.FreeAddress(t),
		log:     process.NewLog(t, "etcd"),
	}
	if cfg.Authority != nil {
		s.server = cfg.Authority.Server(t, "etcd-server")
		s.admin = cfg.Authority.Client(t, "etcd-admin")
	}
	s.Run(t)
	return s
}

// Run starts the server again after Stop, Kill or Restore, on the same data
// and addresses, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	args := []string{
		"--name=" + memberName,
		"--data-dir=" + s.dataDir,
		"--listen-client-urls=" + s.Endpoint(),
		"--advertise-client-urls=" + s.Endpoint(),
		"--listen-peer-urls=" + s.peerURL(),
		"--initial-advertise-peer-urls=" + s.peerURL(),
		"--initial-cluster=" + s.initialCluster(),
		// The machine is not switched off in a test: fsync would only cost time.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
	if s.cfg.Authority != nil {
		args = append(args, "--client-cert-auth",
			"--trusted-ca-file="+s.cfg.Authority.CAFile(),
			"--cert-file="+s.server.CertFile, "--key-file="+s.server.KeyFile)
	}
	args = append(args, s.cfg.Flags...)
	s.process = process.Start(t, process.Config{Path: s.binary(s.cfg.program()), Args: args, Log: s.log, Owner: s.owner})
	client := s.newClient(t)
	defer client.Close()
	s.process.WaitFor(t, startLimit, "etcd to answer", func(ctx context.Context) error {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := client.Get(attempt, "health")
		return err
	})
}

// UseFlags adds to the command line of the next Run.
func (s *Server) UseFlags(flags ...string) { s.cfg.Flags = append(s.cfg.Flags, flags...) }

// Endpoint is the URL for clients.
func (s *Server) Endpoint() string {
	if s.cfg.Authority != nil {
		return "https://" + s.client
	}
	return "http://" + s.client
}

// Secure reports whether the server speaks TLS.
func (s *Server) Secure() bool { return s.cfg.Authority != nil }

// DataDir is the folder with the store and its write-ahead log. It changes
// with Restore.
func (s *Server) DataDir() string { return s.dataDir }

// Client is a client of etcd itself, not of a proxy, closed when t ends.
func (s *Server) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	client := s.newClient(t)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Stop ends the server by SIGTERM and waits for it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.process.Signal(t, syscall.SIGTERM)
	s.process.Wait(t, stopLimit)
}

// Kill ends the server by SIGKILL and waits for it.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.process.Kill(t)
}

// Pause stops the server from running (SIGSTOP) without closing anything, so
// that calls to it stay in flight until Resume. The test's end resumes it.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.process.Signal(t, syscall.SIGSTOP)
	// The threads stop when each of them next looks, not when the signal is sent.
	s.process.WaitFor(t, stopLimit, "etcd to be paused", func(context.Context) error {
		states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.process.PID()))
		if err != nil {
			return err
		}
		for _, file := range states {
			stat, err := os.ReadFile(file)
			if err != nil {
				continue // the thread has ended
			}
			// The state stands behind the name, which is in brackets (proc_pid_stat(5)).
			if _, state, ok := strings.Cut(string(stat), ") "); !ok || !strings.HasPrefix(state, "T") {
				return errors.New("a thread is still running")
			}
		}
		return nil
	})
}

// Resume lets a paused server run again.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.process.Signal(t, syscall.SIGCONT)
}

// SaveSnapshot saves a snapshot by etcdctl and returns its file.
func (s *Server) SaveSnapshot(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snapshot.db")
	s.Ctl(t, "snapshot", "save", file)
	return file
}

// Restore ends the server, replaces its data by the snapshot with etcdutl, and
// starts it again. extra are more arguments of `etcdutl snapshot restore`;
// without any, the restored cluster has the id of the old one and its revision
// falls back.
func (s *Server) Restore(t testing.TB, snapshot string, extra ...string) {
	t.Helper()
	s.Kill(t)
	s.restores++
	s.dataDir = filepath.Join(s.dir, fmt.Sprintf("restored-%d", s.restores))
	args := []string{
		"snapshot", "restore", snapshot,
		"--data-dir=" + s.dataDir,
		"--name=" + memberName,
		"--initial-cluster=" + s.initialCluster(),
		"--initial-advertise-peer-urls=" + s.peerURL(),
	}
	process.Run(t, commandLimit, s.binary("etcdutl"), append(args, extra...)...)
	s.Run(t)
}

// Ctl runs etcdctl against the server itself and returns what it printed.
func (s *Server) Ctl(t testing.TB, args ...string) string {
	t.Helper()
	base := []string{"--endpoints=" + s.Endpoint()}
	if s.cfg.Authority != nil {
		base = append(base, "--cacert="+s.cfg.Authority.CAFile(),
			"--cert="+s.admin.CertFile, "--key="+s.admin.KeyFile)
	}
	return process.Run(t, commandLimit, s.binary("etcdctl"), append(base, args...)...)
}

// DataHolds reports whether any file of the data folder (store, write-ahead
// log, snapshots) holds secret, and in which one. The server may run.
func (s *Server) DataHolds(t testing.TB, secret string) (file string, holds bool) {
	t.Helper()
	// A file that is gone when it is its turn was renamed or dropped meanwhile: all is
	// looked at once more, so that nothing is missed.
	poll.Until(t, commandLimit, "etcd's data folder to be read", func(context.Context) (err error) {
		file, holds, err = s.dataHolds(secret)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			err = poll.Permanent{Err: err}
		}
		return err
	})
	return file, holds
}

func (s *Server) dataHolds(secret string) (file string, holds bool, err error) {
	err = filepath.WalkDir(s.dataDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || holds {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if process.Holds(data, secret) != "" {
			file, holds = path, true
		}
		return nil
	})
	return file, holds, err
}

func (s *Server) peerURL() string { return "http://" + s.peer }

func (s *Server) initialCluster() string { return memberName + "=" + s.peerURL() }

func (s *Server) binary(name string) string { return filepath.Join(s.cfg.Binaries, name) }

func (s *Server) newClient(t testing.TB) *clientv3.Client {
	t.Helper()
	cfg := clientv3.Config{
		Endpoints:   []string{s.Endpoint()},
		DialTimeout: dialLimit,
		Logger:      zap.NewNop(),
	}
	if s.cfg.Authority != nil {
		cfg.TLS = s.cfg.Authority.ClientConfig(t, s.admin)
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		t.Fatalf("making etcd client: %v", err)
	}
	return client
}
