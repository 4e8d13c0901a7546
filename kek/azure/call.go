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

// call does something with the vault, within the deadlines, and tries it once more
// if that can help. do is called by this goroutine, and its context is of one try.
// The error is a *kek.Error.
func (k *KEK) call(ctx context.Context, op, version string, do func(context.Context) error) error {
	if err := k.begin(ctx); err != nil {
		return k.fail(op, kek.Unavailable, version, err)
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, k.config.Timeout)
	defer cancel()
	stop := context.AfterFunc(k.closing, cancel)
	defer stop()
	trace := kek.TraceFrom(outer)
	*trace = kek.Trace{ClientRequestID: newRequestID(), KeyID: k.keyID(version)}
	for {
		if left, class, ok := k.gate.wait(ctx); !ok {
			if err := k.ended(outer); err != nil {
				return k.fail(op, kek.Unavailable, version, err)
			}
			return k.fail(op, class, version, fmt.Errorf("the vault asked to be left alone, which lasts another %v", left.Round(time.Millisecond)))
		}
		trace.Tries++
		x := &exchange{requestID: trace.ClientRequestID}
		err := k.try(context.WithValue(ctx, exchangeKey{}, x), do)
		f := k.judge(err, op, x)
		trace.Status, trace.RequestID, trace.Code = x.status, x.vaultID, f.code()
		if err == nil {
			k.gate.pass()
			return nil
		}
		if err := k.ended(outer); err != nil {
			return k.fail(op, kek.Unavailable, version, err)
		}
		if f.wait > 0 || f.class == kek.Throttled {
			k.gate.pause(f.class, f.wait)
		} else if f.answered {
			k.gate.pass()
		}
		if !f.again || trace.Tries == maxTries || !pauseFor(ctx, f) {
			return k.fail(op, f.class, version, f.err)
		}
	}
}

// ended returns why a call is over whatever the vault says, if it is.
func (k *KEK) ended(outer context.Context) error {
	if err := outer.Err(); err != nil {
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

// try does something once, for TryTimeout at most. A panic in the SDK is an error
// of the try: the challenge of a vault must not be able to end the process. The
// body of the answer is wiped.
func (k *KEK) try(ctx context.Context, do func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, k.config.TryTimeout)
	defer cancel()
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
