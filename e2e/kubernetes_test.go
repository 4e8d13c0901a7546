// Package e2e drives the built etcdseal between a real kube-apiserver and a
// real etcd, and looks at what etcd holds without going through the proxy.
//
// The programs are built into the folder bin when they are missing; the first
// build of kube-apiserver takes minutes, so `go run ./build` before `go test` is
// kinder to the tests' time limit. Nothing but loopback is used. A failed test
// shows the end of every program's log; with E2E_LOGS naming a folder, the whole
// logs are kept there.
package e2e

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
)

// cluster is a kube-apiserver with an etcd behind it, directly or through a
// proxy.
type cluster struct {
	*lab
	proxy *etcdseal.Proxy // nil without one
	api   *apiserver.Server
	// through and beside are methods that must, and must not, have been called
	// through the proxy, or the test does not test what it says.
	through, beside []string
}

// Methods that tell what goes through a proxy: all of a kube-apiserver, lists in
// the way of etcd 3.7, lists in pages, and secrets alone, which have no leases.
const (
	methodTxn    = "/etcdserverpb.KV/Txn"
	methodRange  = "/etcdserverpb.KV/Range"
	methodStream = "/etcdserverpb.KV/RangeStream"
	methodLease  = "/etcdserverpb.Lease/LeaseGrant"
)

// TestKubernetes runs the life of secrets through kube-apiserver on every way
// to put the proxy in between, and once without it: what holds there must hold
// through the proxy.
func TestKubernetes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(*testing.T) *cluster
		after func(*testing.T, *cluster, *workload)
	}{
		{"direct", startDirect, restartKubernetes},
		{"mutual TLS", startMutualTLS, restartKubernetes},
		{"unix socket", startUnixSocket, nil},
		{"only secrets", startOnlySecrets, onlySecretsDepend},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.start(t)
			w := newWorkload(t, c.lab, c.api.Client())
			w.run(t)
			c.checkStored(t, w)
			c.checkTraffic(t)
			if tt.after != nil {
				tt.after(t, c, w)
				c.checkStored(t, w)
			}
		})
	}
}

// startDirect has no proxy: the reference for all others.
func startDirect(t *testing.T) *cluster {
	l := newLab(t, true)
	return &cluster{lab: l, api: apiserver.Start(t, l.apiConfig(l.etcd.Endpoint(), true))}
}

// startMutualTLS has client certificates on both legs, checked by name on the
// proxy's.
func startMutualTLS(t *testing.T) *cluster {
	l := newLab(t, true)
	cfg := l.secureProxyConfig(t)
	cfg.AllowedNames = []string{"kube-apiserver-etcd-client"}
	proxy := etcdseal.Start(t, cfg)
	return &cluster{
		lab: l, proxy: proxy, api: apiserver.Start(t, l.apiConfig(proxy.Endpoint(), true)),
		through: []string{methodTxn, methodRange, methodStream, methodLease},
	}
}

// startUnixSocket has kube-apiserver on a unix socket without TLS. It also
// switches off what lets kube-apiserver answer lists from memory and read them
// by RangeStream, so that pages reach etcd as pages.
func startUnixSocket(t *testing.T) *cluster {
	l := newLab(t, true)
	cfg := l.proxyConfig(t)
	cfg.Socket = filepath.Join(t.TempDir(), "etcd.sock")
	proxy := etcdseal.Start(t, cfg)
	api := l.apiConfig(proxy.Endpoint(), false)
	api.Flags = []string{"--watch-cache=false", "--feature-gates=EtcdRangeStream=false"}
	return &cluster{
		lab: l, proxy: proxy, api: apiserver.Start(t, api),
		through: []string{methodTxn, methodRange, methodLease}, beside: []string{methodStream},
	}
}

// startOnlySecrets sends the secrets alone through the proxy.
func startOnlySecrets(t *testing.T) *cluster {
	l := newLab(t, true)
	proxy := etcdseal.Start(t, l.secureProxyConfig(t))
	api := l.apiConfig(l.etcd.Endpoint(), true)
	api.Overrides = "/secrets#" + proxy.Endpoint()
	return &cluster{
		lab: l, proxy: proxy, api: apiserver.Start(t, api),
		through: []string{methodTxn, methodRange, methodStream}, beside: []string{methodLease},
	}
}

// apiConfig is the configuration of a kube-apiserver of the lab.
func (l *lab) apiConfig(etcdServers string, tls bool) apiserver.Config {
	return apiserver.Config{
		Binaries:    l.binaries,
		Authority:   l.authority,
		Accounts:    l.accounts,
		EtcdServers: etcdServers,
		EtcdTLS:     tls,
	}
}

// checkTraffic looks at what the proxy has counted.
func (c *cluster) checkTraffic(t *testing.T) {
	t.Helper()
	for _, method := range c.through {
		if c.proxy.Calls(t, method) == 0 {
			t.Errorf("no call of %s has gone through the proxy", method)
		}
	}
	for _, method := range c.beside {
		if n := c.proxy.Calls(t, method); n != 0 {
			t.Errorf("%d calls of %s have gone through the proxy, want none", n, method)
		}
	}
}

// checkStored reads etcd itself: every secret must be an envelope whose DEK is
// recorded, every config map the plain object, and the planted plaintext in no
// file of etcd. Without a proxy the opposite must hold, or the check is blind.
func (c *cluster) checkStored(t *testing.T, w *workload) {
	t.Helper()
	secrets := etcd.Pairs(t, c.raw, etcdseal.SecretsPrefix)
	for name := range w.secrets {
		if _, stored := secrets[etcdseal.SecretsPrefix+w.namespace+"/"+name]; !stored {
			t.Errorf("secret %s is not in etcd", name)
		}
	}
	if len(secrets) != len(w.secrets) {
		t.Errorf("etcd holds %d secrets, want %d", len(secrets), len(w.secrets))
	}
	for key, value := range secrets {
		switch {
		case c.proxy == nil && !bytes.HasPrefix(value, []byte(etcd.KubernetesMagic)):
			t.Errorf("stored value of %s is not a plain object", key)
		case c.proxy != nil:
			if _, err := etcd.EnvelopeID(value); err != nil {
				t.Errorf("stored value of %s: %v", key, err)
			}
		}
	}
	maps := etcd.Pairs(t, c.raw, "/registry/configmaps/"+w.namespace+"/")
	if len(maps) != len(w.configMaps) {
		t.Errorf("etcd holds %d config maps, want %d", len(maps), len(w.configMaps))
	}
	for key, value := range maps {
		if !bytes.HasPrefix(value, []byte(etcd.KubernetesMagic)) {
			t.Errorf("stored value of %s is not a plain object", key)
		}
	}
	envelopes := c.checkDEKs(t)
	if c.proxy != nil && envelopes < len(w.secrets) {
		t.Errorf("etcd holds %d envelopes, want %d", envelopes, len(w.secrets))
	}
	if _, err := etcd.CheckHistory(t, c.raw, etcdseal.KeyringPrefix, firstRevision); err != nil {
		t.Errorf("etcd's history: %v", err)
	}
	if _, holds := c.etcd.DataHolds(t, w.openText()); !holds {
		t.Errorf("etcd's files do not hold the config maps' text: the search is blind")
	}
	file, holds := c.etcd.DataHolds(t, c.marker)
	if want := c.proxy == nil; holds != want {
		t.Errorf("etcd's files hold plaintext of secrets: %v (%s), want %v", holds, file, want)
	}
	if strings.Contains(c.api.LogText(t), c.marker) {
		t.Errorf("kube-apiserver's log holds plaintext of secrets")
	}
}
