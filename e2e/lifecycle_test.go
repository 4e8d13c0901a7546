package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/poll"
	"github.com/etcdseal/etcdseal/e2e/process"
)

// TestRulesReloaded changes the rules by SIGHUP, and then breaks the file: the
// rules in force stay.
func TestRulesReloaded(t *testing.T) {
	l := newLab(t, false)
	proxy := etcdseal.Start(t, l.proxyConfig(t))
	s := newStore(t, l, proxy)
	sealed := func(key string) bool {
		if _, err := s.client.Put(call(t), key, "value of "+key); err != nil {
			t.Fatalf("putting %s: %v", key, err)
		}
		response, err := s.client.Get(call(t), key)
		if err != nil || string(response.Kvs[0].Value) != "value of "+key {
			t.Fatalf("getting %s: %v (or another value)", key, err)
		}
		return etcd.IsEnvelope(etcd.Pairs(t, l.raw, key)[key])
	}
	if sealed("/tokens/a") || !sealed(etcdseal.SecretsPrefix+"a") {
		t.Fatal("before the reload, the wrong keys are sealed")
	}
	proxy.Reload(t, func(cfg *etcdseal.Config) {
		cfg.Rules = append(etcdseal.DefaultRules(), etcdseal.Rule{Prefix: "/tokens/"})
	})
	poll.Until(t, settleLimit, "the added rule to seal", func(context.Context) error {
		if !sealed("/tokens/a") {
			return errors.New("it does not")
		}
		return nil
	})
	before := complaints(t, proxy)
	proxy.Reload(t, func(cfg *etcdseal.Config) {
		cfg.Rules = append(etcdseal.DefaultRules(), etcdseal.DefaultRules()...)
	})
	proxy.Process().WaitFor(t, settleLimit, "a complaint about the broken file", func(context.Context) error {
		return atLeast(complaints(t, proxy), before+1)
	})
	if !sealed("/tokens/a") || !sealed(etcdseal.SecretsPrefix+"a") {
		t.Error("after a broken reload, the rules in force are gone")
	}
}

// complaints counts the log's lines of level WARN and above.
func complaints(t *testing.T, proxy *etcdseal.Proxy) int {
	t.Helper()
	count := 0
	for line := range strings.Lines(proxy.LogText(t)) {
		var entry struct {
			Level string `json:"level"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && (entry.Level == "WARN" || entry.Level == "ERROR") {
			count++
		}
	}
	return count
}

// TestGracefulShutdown sends SIGTERM while a watch is open and a put is in
// flight: the put is answered, nobody new is let in, and the process ends.
func TestGracefulShutdown(t *testing.T) {
	l := newLab(t, true)
	cfg := l.proxyConfig(t)
	cfg.ShutdownGrace = "2m" // longer than anything here is waited for
	proxy := etcdseal.Start(t, cfg)
	s := newStore(t, l, proxy)
	s.put(t, "before", 1)
	watch := s.client.Watch(within(t, watchLimit), etcdseal.SecretsPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch

	l.etcd.Pause(t)
	const key = etcdseal.SecretsPrefix + "in-flight"
	answer := make(chan error, 1)
	ctx, request := call(t), &etcdserverpb.PutRequest{Key: []byte(key), Value: l.secret(t, "flight", 10)}
	stream, err := s.client.ActiveConnection().NewStream(ctx, &grpc.StreamDesc{}, etcdserverpb.KV_Put_FullMethodName)
	if err != nil {
		t.Fatalf("opening the put's stream: %v", err)
	}
	if err := stream.SendMsg(request); err != nil {
		t.Fatalf("sending the put: %v", err)
	}
	go func() { answer <- stream.RecvMsg(&etcdserverpb.PutResponse{}) }()
	// The proxy answers these by itself, on the same connection. The second is
	// sent after the put's bytes for certain, so the proxy has the put.
	for range 2 {
		err := s.client.ActiveConnection().Invoke(call(t), "/none.None/None",
			&etcdserverpb.PutRequest{}, &etcdserverpb.PutResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Fatalf("calling an unknown method: %v, want Unimplemented", err)
		}
	}
	proxy.Process().Signal(t, syscall.SIGTERM)
	proxy.Process().WaitFor(t, settleLimit, "the proxy to accept nobody", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", proxy.Address())
		if err != nil {
			return nil
		}
		_ = conn.Close()
		return errors.New("a connection was accepted")
	})
	l.etcd.Resume(t)
	if err := <-answer; err != nil {
		t.Errorf("put in flight: %v, want success", err)
	}
	if state := proxy.Process().Wait(t, settleLimit); state.ExitCode() != 0 {
		t.Errorf("etcdseal ended with %v, want exit status 0", state)
	}
	if _, err := etcd.EnvelopeID(etcd.Pairs(t, l.raw, key)[key]); err != nil {
		t.Errorf("stored value of the put in flight: %v", err)
	}
	proxy.Run(t)
	proxy.WaitReady(t)
	s.put(t, "after", 1)
	// clientv3 takes its watch up where it was cut off. Both events come in one response
	// if the first was not sent before the end, and the second put was faster than the watch.
	want, seen := []string{key, etcdseal.SecretsPrefix + "after-000"}, []string(nil)
	for len(seen) < len(want) {
		response, open := <-watch
		if response.Err() != nil || !open {
			t.Fatalf("watch over the restart, after %q: %v (open: %v)", seen, response.Err(), open)
		}
		for _, event := range response.Events {
			seen = append(seen, string(event.Kv.Key))
		}
	}
	if !slices.Equal(seen, want) {
		t.Errorf("watch over the restart: events of %q, want %q", seen, want)
	}
}

// TestReadiness takes etcd away and gives it back: /readyz follows and names
// what is missing, /livez does not care.
func TestReadiness(t *testing.T) {
	l := newLab(t, true)
	l.etcd.Stop(t)
	proxy := etcdseal.New(t, l.proxyConfig(t))
	proxy.Run(t)
	notReady := func() {
		t.Helper()
		proxy.Process().WaitFor(t, settleLimit, "/readyz to name etcd", func(ctx context.Context) error {
			code, text, err := proxy.Admin(ctx, "/readyz")
			if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(text, "etcd")) {
				err = fmt.Errorf("/readyz answered %d: %s", code, text)
			}
			return err
		})
		if code, text, err := proxy.Admin(call(t), "/livez"); err != nil || code != http.StatusOK {
			t.Errorf("/livez answered %d: %s (%v)", code, text, err)
		}
	}
	notReady()
	l.etcd.Run(t)
	proxy.WaitReady(t)
	s := newStore(t, l, proxy)
	s.put(t, "value", 1)
	l.etcd.Kill(t)
	notReady()
	l.etcd.Run(t)
	proxy.WaitReady(t)
	s.check(t, s.client)
}

// TestNothingStaysOpen ends calls and watches in every way that a client can, and
// then the client: the proxy must hold nothing of it any more.
func TestNothingStaysOpen(t *testing.T) {
	l := newLab(t, true)
	proxy := etcdseal.Start(t, l.proxyConfig(t))
	s := newStore(t, l, proxy)
	s.put(t, "value", 3)
	ctx, cancel := context.WithCancel(call(t))
	<-s.client.Watch(ctx, etcdseal.SecretsPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if open, err := proxy.Metric(call(t), "etcdseal_streams"); err != nil || open < 1 {
		t.Fatalf("metric of open streams is %v with a watch open (%v)", open, err)
	}
	cancel()
	abandoned := newWatchStream(t, s.client)
	abandoned.create(t, etcdseal.SecretsPrefix+"value-000")
	l.etcd.Pause(t)
	for i := range 10 {
		ctx, cancel := context.WithTimeout(call(t), readPause)
		defer cancel()
		if _, err := s.client.Get(ctx, fmt.Sprintf("%svalue-%03d", etcdseal.SecretsPrefix, i)); err == nil {
			t.Error("a paused etcd has answered")
		}
		_ = patientPut(ctx, s.client, etcdseal.SecretsPrefix+"cut-off", l.marker)
	}
	l.etcd.Resume(t)
	if err := s.client.Close(); err != nil {
		t.Fatalf("closing the client: %v", err)
	}
	waitIdle(t, proxy)
}

// waitIdle waits until no client is connected to the proxy and no call open.
func waitIdle(t *testing.T, proxy *etcdseal.Proxy) {
	t.Helper()
	proxy.Process().WaitFor(t, settleLimit, "the proxy to be idle", func(ctx context.Context) error {
		for _, metric := range []string{"etcdseal_connections", "etcdseal_streams"} {
			open, err := proxy.Metric(ctx, metric)
			if err != nil {
				return err
			}
			if open != 0 {
				return fmt.Errorf("%s is %v", metric, open)
			}
		}
		return nil
	})
}

// TestDeadEndpoint names an endpoint on which nothing listens before the one
// that lives.
func TestDeadEndpoint(t *testing.T) {
	l := newLab(t, true)
	cfg := l.proxyConfig(t)
	cfg.Endpoints = append([]string{"https://" + process.FreeAddress(t)}, cfg.Endpoints...)
	s := newStore(t, l, etcdseal.Start(t, cfg))
	s.put(t, "value", 5)
	s.check(t, s.client)
}
