package azure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	azruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/etcdseal/etcdseal/kek"
)

// maxTries is how often one call is tried on the request path.
const maxTries = 2

// retryPause is about how long a second try waits when the vault says nothing.
const retryPause = 200 * time.Millisecond

var errClosed = errors.New("the KEK is closed")

// errTimeout is the cause of a context that ended because Config.Timeout was over.
var errTimeout = errors.New("the time for a call is over")

// bound gives a method its time in all. Within it, a bound call has no more than what
// is left.
func (k *KEK) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, k.config.Timeout, errTimeout)
}

// call does something with the vault, within the deadlines, and tries it once more
// if that can help. do gets the context of one try; a value that comes too late is
// given to discard, which may be nil. The error is a *kek.Error.
func call[T any](ctx context.Context, k *KEK, op, version string, do func(context.Context) (T, error), discard func(T)) (value T, err error) {
	var none T
	if err := k.begin(ctx); err != nil {
		return none, k.fail(op, kek.Unavailable, version, err)
	}
	outer := ctx
	ctx, cancel := k.bound(ctx)
	defer cancel()
	stop := context.AfterFunc(k.closing, cancel)
	defer stop()
	trace := kek.TraceFrom(outer)
	*trace = kek.Trace{ClientRequestID: newRequestID(), KeyID: k.keyID(version)}
	var last failure
	for {
		if shut := k.gate.wait(ctx); shut != nil {
			if err := k.ended(outer); err != nil {
				return none, k.fail(op, kek.Unavailable, version, err)
			}
			return none, k.fail(op, shut.class, version, shut.explain(last.err))
		}
		trace.Tries++
		value, x, err := try(ctx, k, trace.ClientRequestID, do, discard)
		last = k.judge(err, op, x)
		trace.Status, trace.RequestID, trace.Code, trace.Date = x.status, x.vaultID, last.code(), x.date
		if err == nil {
			k.gate.pass()
			return value, nil
		}
		if err := k.ended(outer); err != nil {
			return none, k.fail(op, kek.Unavailable, version, err)
		}
		if p, ok := errors.AsType[*Problem](last.err); ok && p.Status == http.StatusUnauthorized && k.login.refuse() {
			last.again = true
		}
		if last.wait > 0 || last.class == kek.Throttled {
			k.gate.pause(last.class, last.wait, x.whom())
		} else if last.answered {
			k.gate.pass()
		}
		if !last.again || trace.Tries == maxTries || !pauseFor(ctx, last) {
			return none, k.fail(op, last.class, version, last.err)
		}
	}
}

// ended returns why a call is over whatever the vault says, if it is: the caller's
// context ended, or the KEK is closed.
func (k *KEK) ended(outer context.Context) error {
	if err := outer.Err(); err != nil && context.Cause(outer) != errTimeout {
		return err
	}
	if k.closing.Err() != nil {
		return errClosed
	}
	return nil
}

// pauseFor waits a moment before a second try, unless the gate does; it reports
// whether there is time for one.
func pauseFor(ctx context.Context, f failure) bool {
	if f.wait > 0 || f.class == kek.Throttled {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(retryPause/2 + rand.N(retryPause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// panicError is what is left of a panic in the SDK.
type panicError struct{ text string }

func (e *panicError) Error() string { return "the SDK panicked: " + e.text }

// newPanicError keeps of a panic what the runtime says of itself; any other value
// may hold anything.
func newPanicError(value any) error {
	if err, ok := value.(runtime.Error); ok {
		return &panicError{err.Error()}
	}
	return &panicError{fmt.Sprintf("%T", value)}
}

// patience is how long a try whose time is over is waited for: mostly it ends by
// itself at once and says more than that it took too long.
const patience = 500 * time.Millisecond

// try does something once, for TryTimeout at most. It has a goroutine of its own,
// which Close waits for: the SDK waits for a login that another call has begun
// without looking at its own context.
func try[T any](ctx context.Context, k *KEK, requestID string, do func(context.Context) (T, error), discard func(T)) (value T, x *exchange, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.config.TryTimeout)
	defer cancel()
	type result struct {
		value T
		err   error
	}
	done, late := make(chan result), make(chan struct{})
	x = &exchange{requestID: requestID}
	trying := context.WithValue(ctx, exchangeKey{}, x)
	if !k.enter() {
		return value, x, errClosed
	}
	go func() {
		defer k.running.Done()
		var r result
		r.value, r.err = guard(trying, do)
		select {
		case done <- r:
		case <-late:
			if r.err == nil && discard != nil {
				discard(r.value)
			}
		}
	}()
	select {
	case r := <-done:
		return r.value, x, r.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, x, r.err
	case <-timer.C:
		close(late)
		return value, &exchange{}, ctx.Err() // x is the goroutine's from here on
	}
}

// enter counts a try in, unless the KEK is closed.
func (k *KEK) enter() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closing.Err() != nil {
		return false
	}
	k.running.Add(1)
	return true
}

// guard does something and makes a panic in the SDK an error: the challenge of a
// vault must not be able to end the process. The body of the answer is wiped.
func guard[T any](ctx context.Context, do func(context.Context) (T, error)) (value T, err error) {
	var answer *http.Response
	defer func() {
		if value := recover(); value != nil {
			err = newPanicError(value)
		}
		wipe(answer)
	}()
	return do(policy.WithCaptureResponse(ctx, &answer))
}

// wipe clears the body of an answer in which an unwrapped DEK may be. Those of errors
// are still to be read.
func wipe(answer *http.Response) {
	if answer == nil || answer.StatusCode != http.StatusOK {
		return
	}
	if body, err := azruntime.Payload(answer); err == nil {
		clear(body)
	}
}

// keyID is how people name a version of the key.
func (k *KEK) keyID(version string) string {
	id := "https://" + k.host + "/keys/" + k.config.Key
	if version != "" && versionForm.MatchString(version) {
		id += "/" + version
	}
	return id
}
