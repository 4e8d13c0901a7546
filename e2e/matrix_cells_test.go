package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/e2e/etcd"
	"github.com/etcdseal/etcdseal/e2e/poll"
)

// outage breaks main under a running proxy, then starts the proxy anew, and mends main.
func (p *play) outage(t *testing.T, c cell) {
	p.kms.faults[c.fault]()
	if c.running.class != "" {
		p.waitClass(t, c.running.class)
	}
	p.expect(t, "while running", c.running)
	if c.refuses {
		p.proxy.Process().Kill(t)
		p.proxy.Run(t)
		if state := p.proxy.Process().Wait(t, settleLimit); state.ExitCode() == 0 {
			t.Error("etcdseal started and ended well, want a failure")
		}
		p.kms.mend()
		p.proxy.Run(t)
		p.proxy.WaitReady(t)
		p.ready(t)
		return
	}
	p.proxy.Process().Kill(t)
	p.proxy.Run(t)
	p.ready(t)
	p.expect(t, "after a start", c.started)
	p.kms.mend()
	p.proxy.WaitReady(t)
}

// waitClass waits until the checks show that main's class.
func (p *play) waitClass(t *testing.T, class string) {
	t.Helper()
	poll.Until(t, settleLimit, "main to be "+class, func(ctx context.Context) error {
		n, err := p.proxy.Metric(ctx, "etcdseal_kek_health", `kek="main"`, fmt.Sprintf("class=%q", class))
		if err == nil && n < 1 {
			err = fmt.Errorf("it is not")
		}
		return err
	})
}

// expect makes each call and compares the answers with the table's.
func (p *play) expect(t *testing.T, when string, want answers) {
	t.Helper()
	poll.Until(t, settleLimit, "/readyz to be as expected", func(ctx context.Context) error {
		status, text, err := p.proxy.Admin(ctx, "/readyz")
		if err == nil && (status == http.StatusOK) != want.ready {
			err = fmt.Errorf("/readyz is %d: %s", status, text)
		}
		return err
	})
	for _, verb := range verbs {
		expected := want.of(verb)
		var got string
		poll.Until(t, settleLimit, verb+" to be as expected "+when, func(context.Context) error {
			var err error
			got, err = p.try(call(t), verb)
			if strings.HasPrefix(got, "404") {
				return poll.Permanent{Err: fmt.Errorf("%s: not found", when)}
			}
			if got != expected {
				return fmt.Errorf("%s (%v), want %s", got, err, expected)
			}
			return nil
		})
	}
	for verb, answer := range map[string]string{verbGet: want.read, verbUpdate: want.write} {
		code := "OK"
		if _, name, refused := strings.Cut(answer, ", "); refused {
			code = name
		}
		if got := p.etcdCode(t, verb); got.String() != code {
			t.Errorf("%s: %s as etcd's client: %v, want %s", when, verb, got, code)
		}
	}
	p.checkConfigMaps(t, when)
}

// rotateTwice gives main two more versions, and rewraps for each.
func (p *play) rotateTwice(t *testing.T) {
	for range 2 {
		version := p.kms.rotate()
		p.proxy.Tool(t, "rotate", "--yes")
		p.waitRecords(t, version)
		p.healthy(t, "after a rotation")
	}
	p.configure(t, "main", false, "main")
	p.proxy.WaitReady(t)
	p.ready(t)
}

// changeKEK moves from main to second, and main is lost for good.
func (p *play) changeKEK(t *testing.T) {
	p.configure(t, "second", false, "main", "second")
	p.proxy.WaitReady(t)
	p.ready(t)
	p.healthy(t, "with the other KEK")
	p.proxy.Tool(t, "rotate", "--yes", "--drop-kek", "main")
	p.waitRecords(t, `"second"`)
	p.kms.gone()
	p.configure(t, "second", false, "second")
	p.proxy.WaitReady(t)
	p.ready(t)
}

// loseOne ends main for good while second wraps, too.
func (p *play) loseOne(t *testing.T) {
	p.proxy.Tool(t, "rotate", "--yes")
	p.waitRecords(t, `"second"`)
	p.kms.gone()
	p.healthy(t, "with one vault")
	p.configure(t, "second", false, "second")
	p.proxy.WaitReady(t)
	p.ready(t)
}

// waitRecords waits until every record in etcd holds the text.
func (p *play) waitRecords(t *testing.T, text string) {
	t.Helper()
	poll.Until(t, settleLimit, "the records to be rewrapped", func(context.Context) error {
		pairs := etcd.Pairs(t, p.raw, p.prefix)
		for id, key := range etcd.ReadKeyring(t, p.raw, p.prefix) {
			if !strings.Contains(string(pairs[key]), text) {
				return fmt.Errorf("the record of DEK %s is not", id)
			}
		}
		return nil
	})
}
