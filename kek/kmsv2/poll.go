package kmsv2

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/etcdseal/etcdseal/kek"
)

// sickInterval is how often a plugin is polled that fails: kube-apiserver's.
const sickInterval = 10 * time.Second

// follow polls until ctx ends. The turn is its own when it begins.
func (k *KEK) follow(ctx context.Context) {
	for {
		_, failed := k.ask(ctx, true)
		k.give()
		wait := k.config.PollInterval
		if failed != nil {
			wait = min(wait, sickInterval)
		}
		// The jitter is for proxies that were started together.
		if !sleep(ctx, wait-wait/10+rand.N(wait/5+1)) || !k.take(ctx) {
			return
		}
	}
}

// current returns the key id that is believed if the plugin was well when it was last
// asked. If it was not it is asked again.
func (k *KEK) current(ctx context.Context) (string, *failure) {
	version, failed, asked := k.last()
	if asked > 0 && failed == nil {
		return version, nil
	}
	if !k.take(ctx) {
		return "", &failure{kek.Unavailable, fmt.Errorf("waiting for the plugin's status: %w", ctx.Err())}
	}
	defer k.give()
	if version, failed, since := k.last(); since != asked {
		return version, failed // somebody else has asked meanwhile
	}
	if _, failed := k.ask(ctx, false); failed != nil {
		return "", failed
	}
	version, failed, _ = k.last()
	return version, failed
}

// confirm judges a wrapping by a key id that is not believed: the plugin may just have
// got another key, and then its status says so too.
func (k *KEK) confirm(ctx context.Context, id string) *failure {
	if !k.take(ctx) {
		return &failure{kek.Unavailable, fmt.Errorf("waiting for the plugin's status: %w", ctx.Err())}
	}
	defer k.give()
	status, failed := k.ask(ctx, false)
	if failed != nil {
		return failed
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.follower.believed
	switch {
	case id == before: // by now
		return nil
	case status.GetKeyId() != id:
		return &failure{kek.Unavailable, fmt.Errorf("the plugin encrypts by key id %.64q, and its status names %.64q: see that it stays with one", id, status.GetKeyId())}
	case !k.follower.confirm(id):
		return &failure{kek.Unavailable, fmt.Errorf("the plugin encrypts by key id %.64q after it changed to %.64q: another one is believed when %d polls in a row have named it, since it changed of late",
			id, before, k.follower.needed())}
	}
	k.log.Info("KMS plugin has another key", "keyVersion", id, "before", before)
	return nil
}

// ask asks the plugin for its status, checks it, and notes its health, and if it is a
// poll its key id. The caller has the turn. A caller's end is not the plugin's fault and
// is not noted.
func (k *KEK) ask(ctx context.Context, poll bool) (*kmsapi.StatusResponse, *failure) {
	status, failed, _ := try(k, ctx, kek.OpVersion, nil, func(ctx context.Context, c *call) (*kmsapi.StatusResponse, error) {
		return k.plugin.Status(ctx, &kmsapi.StatusRequest{}, c.options()...)
	})
	if failed == nil {
		if err := checkStatus(status); err != nil {
			failed = &failure{kek.Unavailable, fmt.Errorf("the plugin's status cannot be used: %w", err)}
		}
	}
	if failed != nil && (ctx.Err() != nil || k.closed.Load()) {
		return nil, failed
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.sick
	k.sick = failed
	k.asked++
	switch {
	case failed != nil && (before == nil || before.class != failed.class):
		k.log.Warn("KMS plugin fails", "class", failed.class.String(), "error", failed.err.Error())
	case failed == nil && before != nil:
		k.log.Info("KMS plugin is well again")
	}
	if failed != nil {
		return nil, failed
	}
	if poll || k.follower.believed == "" {
		k.see(status.GetKeyId())
	}
	return status, nil
}

// see takes in the key id of a poll. The caller holds mu.
func (k *KEK) see(id string) {
	before := k.follower.believed
	switch k.follower.see(id) {
	case sawAnother:
		k.log.Info("KMS plugin names another key", "keyVersion", id, "believed", before, "neededPolls", k.follower.needed())
	case sawChange:
		k.log.Info("KMS plugin has another key", "keyVersion", id, "before", before)
	case sawWaver:
		if n := k.follower.wavers; n&(n-1) == 0 { // the first, second, fourth ... time
			k.log.Warn("KMS plugin does not stay with one key, the last one that was believed stays", "keyVersion", id, "believed", before, "times", n)
		}
	}
}

// last returns the key id that is believed, what was wrong when the plugin was last
// asked, and how often it was.
func (k *KEK) last() (version string, failed *failure, asked int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.follower.believed, k.sick, k.asked
}

// take waits for the turn to ask for the status, and reports whether it came before
// ctx ended.
func (k *KEK) take(ctx context.Context) bool {
	select {
	case k.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// give ends the turn.
func (k *KEK) give() { <-k.turn }
