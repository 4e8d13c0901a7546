package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/pki"
	"github.com/etcdseal/etcdseal/e2e/poll"
)

// matrixOutage are bounds short enough to wait for; docs/RUNBOOK.md has the defaults.
const matrixOutage = "{checkInterval: 1s, deniedGrace: 1s}"

// stage is one cluster on which the cells of one kind of KEK run one after another.
type stage struct {
	*lab
	proxy  *etcdseal.Proxy
	api    *apiserver.Client
	client *clientv3.Client // of the proxy
	cells  int
}

// play is one cell at work, in a namespace and with a keyring of its own.
type play struct {
	*stage
	kms       *emulated
	namespace string
	prefix    string            // of the keyring
	values    map[string][]byte // acknowledged, by name
	tries     int
}

// TestKeyMatrix breaks each kind of KEK in each way while secrets are in use through
// kube-apiserver, and holds docs/RUNBOOK.md's table to what happens.
func TestKeyMatrix(t *testing.T) {
	for _, kind := range matrixKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			for _, c := range matrix {
				if c.kind != kind || c.absent != "" {
					continue
				}
				t.Run(c.fault, func(t *testing.T) { s.play(t, c) })
			}
		})
	}
}

func newStage(t *testing.T) *stage {
	l := newLab(t, true)
	cfg := l.proxyConfig(t)
	proxy := etcdseal.Start(t, cfg)
	s := &stage{lab: l, proxy: proxy}
	s.api = apiserver.Start(t, l.apiConfig(proxy.Endpoint(), true)).Client()
	s.client = proxy.Client(t, l.authority, pki.Files{})
	return s
}

// play runs one cell.
func (s *stage) play(t *testing.T, c cell) {
	s.cells++
	p := &play{
		stage: s, namespace: fmt.Sprintf("matrix-%d", s.cells), prefix: fmt.Sprintf("/etcdseal-%d/", s.cells),
		values: map[string][]byte{},
	}
	switch c.kind {
	case kindAzure:
		p.kms = newVaults(t)
	case kindKMSv2:
		p.kms = newPlugins(t)
	case kindLocal:
		p.kms = newFiles(t, s.binaries)
	}
	p.configure(t, "main", c.fault == faultGone, "main", "second")
	p.proxy.WaitReady(t)
	p.ready(t)
	p.healthy(t, "before")
	switch c.fault {
	case faultRotated:
		p.rotateTwice(t)
	case faultChanged:
		p.changeKEK(t)
	case faultGone:
		p.loseOne(t)
	default:
		p.outage(t, c)
	}
	p.healthy(t, "after")
	p.finish(t)
}

// configure kills the proxy and starts it with the named KEKs, sealing with one of them.
func (p *play) configure(t *testing.T, sealing string, recovery bool, names ...string) {
	t.Helper()
	p.proxy.Process().Kill(t)
	p.proxy.Change(t, func(cfg *etcdseal.Config) {
		rule := etcdseal.Rule{Prefix: etcdseal.SecretsPrefix, KEK: sealing}
		if recovery {
			rule.RecoveryKEKs = []string{"second"}
		}
		cfg.Rules = []etcdseal.Rule{rule}
		cfg.KEKs = map[string]string{}
		for _, name := range names {
			cfg.KEKs[name] = p.kms.keks[name]
		}
		cfg.KeyringPrefix, cfg.Outage = p.prefix, matrixOutage
	})
	p.proxy.Run(t)
}

// ready waits until kube-apiserver works through the restarted proxy.
func (p *play) ready(t *testing.T) {
	t.Helper()
	poll.Until(t, settleLimit, "kube-apiserver to work again", func(ctx context.Context) error {
		if err := p.api.Ready(ctx); err != nil {
			return err
		}
		_, err := p.api.Create(ctx, apiserver.Namespaces, apiserver.NewNamespace(p.namespace))
		var failed *apiserver.StatusError
		if errors.As(err, &failed) && failed.Code == http.StatusConflict {
			return nil
		}
		return err
	})
}

// healthy waits until secrets can be written again without a restart, and then demands
// that every call succeeds and every acknowledged value is there.
func (p *play) healthy(t *testing.T, when string) {
	t.Helper()
	poll.Until(t, settleLimit, "secrets to be written "+when, func(ctx context.Context) error {
		_, err := p.try(ctx, verbCreate)
		return err
	})
	// A kube-apiserver whose watch of secrets broke off during the fault reads them all
	// again, and refuses lists with 429 until it has.
	poll.Until(t, settleLimit, "secrets to be listed "+when, func(ctx context.Context) error {
		answer, err := p.try(ctx, verbList)
		if err != nil && !strings.HasPrefix(answer, "429 ") {
			err = poll.Permanent{Err: err}
		}
		return err
	})
	for _, verb := range verbs {
		if answer, err := p.try(call(t), verb); err != nil {
			t.Errorf("%s: %s of a secret: %s, %v", when, verb, answer, err)
		}
	}
	p.checkConfigMaps(t, when)
	p.checkValues(t)
}

// try makes one call through kube-apiserver and returns the HTTP status of its refusal.
// What was read must be what was written.
func (p *play) try(ctx context.Context, verb string) (answer string, err error) {
	path := apiserver.Secrets(p.namespace)
	name := p.one()
	switch verb {
	case verbCreate, verbUpdate:
		p.tries++
		value := []byte(fmt.Sprintf("%s %d", p.marker, p.tries))
		if verb == verbCreate {
			name = fmt.Sprintf("secret-%d", p.tries)
			_, err = p.api.Create(ctx, path, apiserver.NewSecret(p.namespace, name, value))
		} else {
			_, err = p.api.Update(ctx, path, apiserver.NewSecret(p.namespace, name, value))
		}
		if err == nil {
			p.values[name] = value
		}
	case verbGet:
		var got apiserver.Object
		if got, err = p.api.Get(ctx, path, name); err == nil && !bytes.Equal(got.Data["value"], p.values[name]) {
			err = errors.New("another value")
		}
	case verbList:
		var got apiserver.List
		if got, _, err = p.api.List(ctx, path, 0, nil); err == nil && len(got.Items) != len(p.values) {
			err = fmt.Errorf("%d secrets, want %d", len(got.Items), len(p.values))
		}
	}
	return answerOf(err), err
}

// answerOf is what the API's client sees, in the form of the table.
func answerOf(err error) string {
	var failed *apiserver.StatusError
	switch {
	case err == nil:
		return answered
	case errors.As(err, &failed):
		for _, code := range []codes.Code{codes.FailedPrecondition, codes.Unavailable, codes.DataLoss} {
			if strings.Contains(failed.Message, "code = "+code.String()) {
				return fmt.Sprintf("%d, %v", failed.Code, code)
			}
		}
		return fmt.Sprintf("%d %s, %s", failed.Code, failed.Reason, failed.Message)
	}
	return err.Error()
}

// one is the name of one acknowledged secret, always the same.
func (p *play) one() string {
	name := ""
	for n := range p.values {
		if name == "" || n < name {
			name = n
		}
	}
	return name
}

// checkValues reads every acknowledged value through kube-apiserver and as etcd's client.
func (p *play) checkValues(t *testing.T) {
	t.Helper()
	for name, want := range p.values {
		got, err := p.api.Get(call(t), apiserver.Secrets(p.namespace), name)
		if err != nil || !bytes.Equal(got.Data["value"], want) {
			t.Errorf("secret %s is lost: %v", name, err)
		}
	}
	response, err := p.client.Get(call(t), etcdseal.SecretsPrefix+p.namespace+"/", clientv3.WithPrefix())
	if err != nil || len(response.Kvs) != len(p.values) {
		t.Errorf("listing as etcd's client: %v, want %d values", err, len(p.values))
	}
}

// checkConfigMaps writes and reads what is under no rule.
func (p *play) checkConfigMaps(t *testing.T, when string) {
	t.Helper()
	p.tries++
	name := fmt.Sprintf("map-%d", p.tries)
	path := apiserver.ConfigMaps(p.namespace)
	_, err := p.api.Create(call(t), path, apiserver.NewConfigMap(p.namespace, name, []byte(name)))
	if err == nil {
		_, err = p.api.Get(call(t), path, name)
	}
	if err != nil {
		t.Errorf("%s: config map %s: %v", when, name, err)
	}
}

// etcdCode is the gRPC code that etcd's client gets for a write or a read of a secret.
func (p *play) etcdCode(t *testing.T, verb string) codes.Code {
	t.Helper()
	key := etcdseal.SecretsPrefix + p.namespace + "/" + p.one()
	var err error
	if verb == verbGet {
		_, err = p.client.Get(call(t), key)
	} else {
		// The condition fails: nothing is written, but the value is sealed before.
		_, err = p.client.Txn(call(t)).If(clientv3.Compare(clientv3.Version(key), "=", 0)).
			Then(clientv3.OpPut(key, p.marker)).Commit()
	}
	return status.Code(err)
}

// finish demands that etcd holds nothing but envelopes, and removes them.
func (p *play) finish(t *testing.T) {
	t.Helper()
	for key, value := range etcd.Pairs(t, p.raw, etcdseal.SecretsPrefix) {
		if _, err := etcd.EnvelopeID(value); err != nil {
			t.Errorf("stored value of %s: %v", key, err)
		}
	}
	for name := range p.values {
		if err := p.api.Delete(call(t), apiserver.Secrets(p.namespace), name); err != nil {
			t.Errorf("deleting secret %s: %v", name, err)
		}
	}
	poll.Until(t, settleLimit, "kube-apiserver to see no secret", func(ctx context.Context) error {
		list, _, err := p.api.List(ctx, apiserver.Secrets(p.namespace), 0, nil)
		if err == nil && len(list.Items) > 0 {
			err = errors.New("there are some")
		}
		return err
	})
}
