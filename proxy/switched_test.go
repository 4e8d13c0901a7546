package proxy_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// serveSwitch passes connections to a socket on to that which target names when they
// come. Those that are there already stay where they lead.
func serveSwitch(t *testing.T, socket string, target *atomic.Pointer[string]) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	must(t, err)
	var conns sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	conns.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", *target.Load())
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			open = append(open, near, far)
			mu.Unlock()
			conns.Go(func() { defer far.Close(); _, _ = io.Copy(far, near) })
			conns.Go(func() { defer near.Close(); _, _ = io.Copy(near, far) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
}

// TestTheAddressIsSwitched has the address of etcd lead to another cluster while the old
// one is alive, so that no connection of the keyring's breaks: it comes along all the same.
func TestTheAddressIsSwitched(t *testing.T) {
	dir, err := os.MkdirTemp("", "etcd") // shorter than t.TempDir, for a socket's path is limited
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	before, after, socket := filepath.Join(dir, "1.sock"), filepath.Join(dir, "2.sock"), filepath.Join(dir, "s.sock")
	t.Cleanup(startEtcdOn(t, before, "old").Close)
	t.Cleanup(startEtcdOn(t, after, "new").Close)
	var target atomic.Pointer[string]
	target.Store(&before)
	serveSwitch(t, socket, &target)
	l := newLab(t, setup{etcdURL: "unix://" + socket})
	_, err = l.client.Put(bounded(t), sealedPrefix+"a", "one")
	must(t, err)
	must(t, l.client.Close())

	target.Store(&after)
	client := dial(t, l.address)
	_, err = client.Put(bounded(t), sealedPrefix+"b", "two")
	must(t, err)
	got, err := dial(t, "unix://"+after).Get(bounded(t), sealedPrefix+"b")
	must(t, err)
	if len(got.Kvs) != 1 || !envelope.Is(got.Kvs[0].Value) {
		t.Errorf("the new etcd holds %v, want the sealed value", got.Kvs)
	}
	records, err := dial(t, "unix://"+after).Get(bounded(t), "/etcdseal/dek/", clientv3.WithPrefix())
	must(t, err)
	if len(records.Kvs) == 0 {
		t.Error("the new etcd has no record of the DEK")
	}
}
