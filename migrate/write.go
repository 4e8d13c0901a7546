package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Bounds of one transaction. etcd allows 128 comparisons by default, of which some are
// of records, and 1.5 MiB.
const (
	maxItems = 100
	minItems = 10 // at a bounded rate
	// perSecondAimed is how many transactions a second there are at a bounded rate.
	perSecondAimed = 40
	maxOps         = 128
	txnBytes       = 512 << 10
)

// maxTries bounds how often a key is tried again that changed meanwhile. What is left then
// is for the next pass.
const maxTries = 8

// maxFlying is how many transactions are under way at once, so that etcd has something to do
// while values are read and sealed here.
const maxFlying = 4

// attempt is a transaction under way.
type attempt struct {
	items  []*item
	guards []string
	ended  chan struct{} // closed when what follows is set
	answer *clientv3.TxnResponse
	err    error
	tries  int64 // of the call, while etcd did not answer
}

// flush starts to write what is pending. How that ends is taken in later, by settle.
func (r *run) flush(ctx context.Context) error {
	items := r.pending
	r.pending, r.pendingBytes = nil, 0
	if len(items) == 0 {
		return nil
	}
	if err := r.watchQuota(ctx); err != nil {
		return err
	}
	if err := r.limiter.WaitN(ctx, len(items)); err != nil {
		return err
	}
	for len(r.flying) >= maxFlying {
		if err := r.land(ctx); err != nil {
			return err
		}
	}
	a, err := r.begin(ctx, items)
	if a != nil {
		r.flying = append(r.flying, a)
	}
	return err
}

// land takes in how the oldest transaction under way ended.
func (r *run) land(ctx context.Context) error {
	a := r.flying[0]
	r.flying = r.flying[1:]
	return r.settle(ctx, a, 0)
}

// abandon waits for what is under way, so that a run which failed still knows what it has
// written.
func (r *run) abandon() {
	for _, a := range r.flying {
		<-a.ended
		if a.err == nil && a.answer.Succeeded {
			r.done(a)
		}
	}
	r.flying = nil
}

// begin makes what is to be written and sends it. It returns nil if nothing could be made.
func (r *run) begin(ctx context.Context, items []*item) (*attempt, error) {
	items, err := r.makeAll(ctx, items)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	a := &attempt{items: items, guards: guardsOf(items), ended: make(chan struct{})}
	if len(a.items)+len(a.guards) > maxOps {
		a.err = errTooMany
		close(a.ended)
		return a, nil
	}
	go func() { // ends with ctx or its patience, and is waited for by settle or abandon
		defer close(a.ended)
		a.err = r.insist(ctx, func(ctx context.Context) (err error) {
			a.tries++ // the one before may have been carried out: its comparisons tell
			a.answer, err = r.transaction(ctx, a.items, a.guards)
			return err
		})
	}()
	return a, nil
}

// errTooMany says that a transaction would have more operations than etcd takes.
var errTooMany = errors.New("too many operations")

// commit writes items in one transaction, or in several if that is what it takes. Each
// ends as written, as not to be written any more, as a problem, or as left.
func (r *run) commit(ctx context.Context, items []*item, try int) error {
	if len(items) == 0 {
		return nil
	}
	if try > maxTries {
		for _, it := range items {
			r.result.Left++
			r.result.LeftBytes += int64(len(it.key) + len(it.stored))
		}
		return nil
	}
	a, err := r.begin(ctx, items)
	if err != nil || a == nil {
		return err
	}
	return r.settle(ctx, a, try)
}

// settle waits for a transaction and does what its end asks for.
func (r *run) settle(ctx context.Context, a *attempt, try int) error {
	<-a.ended
	r.result.Retried += max(0, a.tries-1)
	switch {
	case errors.Is(a.err, rpctypes.ErrNoSpace):
		return errAlarm
	case a.err != nil && (a.err == errTooMany || ofRequest(a.err)) && len(a.items) > 1:
		return r.halves(ctx, a.items, try)
	case a.err != nil && ofRequest(a.err):
		r.problem(a.items[0].key, refusal(a.err, a.items[0]))
		return nil
	case a.err != nil:
		return fmt.Errorf("writing %d values from %q: %w", len(a.items), a.items[0].key, a.err)
	case a.answer.Succeeded:
		r.done(a)
		return nil
	}
	now, err := r.reread(ctx, a)
	if err != nil && tooLarge(err) && len(a.items) > 1 {
		return r.halves(ctx, a.items, try)
	}
	if err != nil {
		return fmt.Errorf("reading again %d values from %q: %w", len(a.items), a.items[0].key, err)
	}
	same, changed, err := r.refresh(ctx, a, now)
	if err != nil {
		return err
	}
	if len(same) == len(a.items) { // a record was missing, or was when it was written
		return r.commit(ctx, same, try+1)
	}
	// Those that nobody touched are written apart from the busy ones, and are fewer each time.
	if err := r.commit(ctx, same, try); err != nil {
		return err
	}
	return r.commit(ctx, changed, try+1)
}

func (r *run) halves(ctx context.Context, items []*item, try int) error {
	half := len(items) / 2
	if err := r.commit(ctx, items[:half:half], try); err != nil {
		return err
	}
	return r.commit(ctx, items[half:], try)
}

// makeAll makes what is to be written, and returns the items of which it could be made.
func (r *run) makeAll(ctx context.Context, items []*item) ([]*item, error) {
	var good []*item
	for _, it := range items {
		if it.out != nil {
			good = append(good, it)
			continue
		}
		var own error // about this value alone
		err := r.insist(ctx, func(ctx context.Context) error {
			err := r.make(ctx, it)
			var seal *sealError
			if err != nil && !passing(err) && !errors.As(err, &seal) {
				own, err = err, nil
			}
			return err
		})
		switch {
		case errors.Is(err, rpctypes.ErrNoSpace): // for the record of a new DEK
			return nil, errAlarm
		case err != nil:
			return nil, fmt.Errorf("at key %q: %w", it.key, err)
		case own != nil:
			r.problem(it.key, own)
		default:
			good = append(good, it)
		}
	}
	return good, nil
}

// guardsOf returns the keys of the records of the DEKs that sealed, each once.
func guardsOf(items []*item) []string {
	var guards []string
	for _, it := range items {
		if it.guard != "" && !slices.Contains(guards, it.guard) {
			guards = append(guards, it.guard)
		}
	}
	return guards
}

// transaction writes all items, if none has changed and the records are there. A key
// without a lease has none for as long as its revision is the same; one with a lease keeps
// it, which costs etcd another two looks at the key.
func (r *run) transaction(ctx context.Context, items []*item, guards []string) (*clientv3.TxnResponse, error) {
	compare := make([]clientv3.Cmp, 0, len(guards)+len(items))
	write := make([]clientv3.Op, 0, len(items))
	for _, guard := range guards {
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(guard), ">", 0))
	}
	for _, it := range items {
		key := string(it.key)
		compare = append(compare, clientv3.Compare(clientv3.ModRevision(key), "=", it.revision))
		var lease []clientv3.OpOption
		if it.leased {
			lease = append(lease, clientv3.WithIgnoreLease())
		}
		write = append(write, clientv3.OpPut(key, string(it.out), lease...))
	}
	return r.engine.KV.Txn(ctx).If(compare...).Then(write...).Commit()
}

// reread returns what is there of a transaction's records and keys, at one revision.
func (r *run) reread(ctx context.Context, a *attempt) (answer *clientv3.TxnResponse, err error) {
	read := make([]clientv3.Op, 0, len(a.guards)+len(a.items))
	for _, guard := range a.guards {
		read = append(read, clientv3.OpGet(guard, clientv3.WithCountOnly()))
	}
	for _, it := range a.items {
		read = append(read, clientv3.OpGet(string(it.key)))
	}
	err = r.insist(ctx, func(ctx context.Context) (err error) {
		answer, err = r.engine.KV.Txn(ctx).Then(read...).Commit()
		return err
	})
	return answer, err
}

// done notes that a transaction was carried out.
func (r *run) done(a *attempt) {
	r.fresh = append(r.fresh, a.answer.Header.Revision)
	for _, it := range a.items {
		r.changed(it)
	}
}

func (r *run) changed(it *item) {
	r.result.Changed++
	r.result.ChangedBytes += int64(len(it.key) + len(it.stored))
	r.written += int64(len(it.key) + len(it.out))
}

// refresh takes in what is there now of a transaction that did not write, and returns what
// is still to be written: keys that are as they were, and others that changed.
func (r *run) refresh(ctx context.Context, a *attempt, now *clientv3.TxnResponse) (same, changed []*item, err error) {
	for i, guard := range a.guards {
		if now.Responses[i].GetResponseRange().Count > 0 {
			continue
		}
		if err := r.restore(ctx, guard, a.items); err != nil {
			return nil, nil, err
		}
	}
	for i, it := range a.items {
		kvs := now.Responses[len(a.guards)+i].GetResponseRange().Kvs
		switch {
		case len(kvs) == 0: // deleted
			r.moved++
			r.result.Retried++
		case kvs[0].ModRevision == it.revision:
			same = append(same, it)
		case it.dek != envelope.ID{} && bytes.Equal(kvs[0].Value, it.out): // sealed by this run: an answer was lost
			r.moved++
			r.changed(it)
		default:
			r.moved++
			r.result.Retried++
			again, err := r.judge(ctx, kvs[0])
			if err != nil {
				return nil, nil, err
			}
			if again != nil {
				changed = append(changed, again)
			}
		}
	}
	return same, changed, nil
}

// restore has a record put back that etcd has lost. If it was removed for good, what was
// sealed under it is made again with another DEK.
func (r *run) restore(ctx context.Context, guard string, items []*item) error {
	r.engine.Logger.Warn("the record of the DEK that seals is not in etcd", "record", guard)
	err := r.insist(ctx, func(ctx context.Context) error { return r.engine.Keyring.Restore(ctx, []byte(guard)) })
	if err != nil && !errors.Is(err, dek.ErrTombstoned) {
		return fmt.Errorf("putting back the record of the DEK that seals: %w", err)
	}
	for _, it := range items {
		if err != nil && it.guard == guard {
			it.out, it.guard, it.dek = nil, "", envelope.ID{}
		}
	}
	return nil
}

// ofRequest reports whether etcd refused what a request holds, so that another one may
// do better.
func ofRequest(err error) bool {
	switch codeOf(err) {
	case codes.InvalidArgument, codes.PermissionDenied:
		return true
	}
	return tooLarge(err)
}

// tooLarge reports whether an error is gRPC's refusal of a large message.
func tooLarge(err error) bool {
	return codeOf(err) == codes.ResourceExhausted && !errors.Is(err, rpctypes.ErrNoSpace) && !errors.Is(err, rpctypes.ErrTooManyRequests)
}

// refusal says why a value was left as it is.
func refusal(err error, it *item) error {
	if codeOf(err) == codes.PermissionDenied {
		return fmt.Errorf("etcd's user may not write it: %w", err)
	}
	return fmt.Errorf("its %d bytes are too near etcd's request limit (--max-request-bytes), left as it is: %w", len(it.stored), err)
}

func codeOf(err error) codes.Code {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code()
	}
	return status.Code(err)
}
