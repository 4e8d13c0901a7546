package proxy_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
)

// gate stands between the proxy and etcd and, while it is shut, holds back what
// etcd says on new connections from its first HEADERS on: the answer to the check
// of the keyring is the first that comes.
type gate struct {
	listener net.Listener
	etcd     string

	mu   sync.Mutex
	open chan struct{} // closed while the gate is open
}

func newGate(t *testing.T, etcdURL string) *gate {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &gate{listener: ln, etcd: strings.TrimPrefix(etcdURL, "http://"), open: make(chan struct{})}
	close(g.open)
	var carried sync.WaitGroup
	carried.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			carried.Go(func() { g.carry(near) })
		}
	})
	t.Cleanup(func() { g.release(); ln.Close(); carried.Wait() })
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

func (g *gate) carry(near net.Conn) {
	defer near.Close()
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	far, err := net.Dial("tcp", g.etcd)
	if err != nil {
		return
	}
	go func() {
		defer far.Close()
		_, _ = io.Copy(far, near)
	}()
	for header := make([]byte, 9); ; {
		if _, err := io.ReadFull(far, header); err != nil {
			return
		}
		if http2.FrameType(header[3]) == http2.FrameHeaders {
			<-open
		}
		_, _ = near.Write(header)
		if _, err := io.CopyN(near, far, int64(binary.BigEndian.Uint32(header)>>8)); err != nil {
			return
		}
	}
}

// TestNothingIsSealedBeforeTheCheck has a new connection on which etcd does not say
// whether it holds the DEK's record: what is to be sealed waits, the rest goes on.
func TestNothingIsSealedBeforeTheCheck(t *testing.T) {
	etcdURL := startEtcd(t)
	g := newGate(t, etcdURL)
	l := newLab(t, setup{etcdURL: etcdURL, upstream: "http://" + g.listener.Addr().String()})
	ctx := bounded(t)
	_, err := l.client.Put(ctx, sealedPrefix+"warm", "x")
	must(t, err)
	seen := l.direct.Watch(ctx, "/free/", clientv3.WithPrefix())
	g.shut()
	kv := etcdserverpb.NewKVClient(l.conn(t))
	results := make(chan error, 6)
	put := func(key string) {
		_, err := kv.Put(ctx, &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte("v")})
		results <- err
	}
	go put(sealedPrefix + "a")
	for i := range 5 {
		go put(fmt.Sprintf("/free/%d", i))
		if r := <-seen; r.Err() != nil || len(r.Events) != 1 {
			t.Fatalf("a key under no rule: %v", r.Err())
		}
	}
	if l.stored(t, sealedPrefix+"a") != nil {
		t.Error("a value was sealed on a connection that was not checked")
	}
	g.release()
	for range 6 {
		must(t, <-results)
	}
	if l.stored(t, sealedPrefix+"a") == nil {
		t.Error("the value was not stored after the check")
	}
}
