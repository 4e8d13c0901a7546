// Package e2e drives the built etcdseal between a real kube-apiserver and a
// real etcd, and looks at what etcd holds without going through the proxy.
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
}

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
	return &cluster{lab: l, proxy: proxy, api: apiserver.Start(t, l.apiConfig(proxy.Endpoint(), true))}
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
	return &cluster{lab: l, proxy: proxy, api: apiserver.Start(t, api)}
}

// startOnlySecrets sends the secrets alone through the proxy.
func startOnlySecrets(t *testing.T) *cluster {
	l := newLab(t, true)
	proxy := etcdseal.Start(t, l.secureProxyConfig(t))
	api := l.apiConfig(l.etcd.Endpoint(), true)
	api.Overrides = "/secrets#" + proxy.Endpoint()
	return &cluster{lab: l, proxy: proxy, api: apiserver.Start(t, api)}
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
