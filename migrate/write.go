package migrate

import (
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
	maxOps   = 128
	txnBytes = 512 << 10
)

// maxTries bounds how often one transaction is made again since keys changed meanwhile.
// What is left then is for the next pass. From splitTries on it is made in halves, so that one
// busy key does not hold up the others.
const (
	maxTries   = 8
	splitTries = 3
)

// flush writes what is pending.
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
	return r.commit(ctx, items, 0)
}

// commit writes items in one transaction, or in several if that is what it takes. Each
// ends as written, as not to be written any more, as a problem, or as left.
func (r *run) commit(ctx context.Context, items []*item, try int) error {
	for ; ; try++ {
		items, err := r.makeAll(ctx, items)
		if err != nil || len(items) == 0 {
			return err
		}
		guards := guardsOf(items)
		if len(items)+len(guards) > maxOps {
			return r.halves(ctx, items, try)
		}
		if try >= splitTries && len(items) > 1 { // each half has one try before it is cut again
			return r.halves(ctx, items, splitTries-1)
		}
		var answer *clientv3.TxnResponse
		again := false
		err = r.insist(ctx, func(ctx context.Context) (err error) {
			if again { // the one before may have been carried out: its comparisons tell
				r.result.Retried++
			}
			again = true
			answer, err = r.transaction(ctx, items, guards)
			return err
		})
		switch {
		case errors.Is(err, rpctypes.ErrNoSpace):
			return fmt.Errorf("%w (etcd: %w)", ErrQuota, err)
		case err != nil && ofRequest(err) && len(items) > 1:
			return r.halves(ctx, items, try)
		case err != nil && ofRequest(err):
			r.problem(items[0].key, refusal(err, items[0]))
			return nil
		case err != nil:
			return fmt.Errorf("writing %d values from %q: %w", len(items), items[0].key, err)
		case answer.Succeeded:
			r.done(items)
			return nil
		}
		if items, err = r.refresh(ctx, items, guards, answer); err != nil {
			return err
		}
		if try >= maxTries {
			for _, it := range items {
				r.result.Left++
				r.result.LeftBytes += int64(len(it.key) + len(it.stored))
			}
			return nil
		}
	}
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

// transaction writes all items, if none has changed and the records are there. If not,
// it reads them.
func (r *run) transaction(ctx context.Context, items []*item, guards []string) (*clientv3.TxnResponse, error) {
	var compare []clientv3.Cmp
	var write, read []clientv3.Op
	for _, guard := range guards {
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(guard), ">", 0))
		read = append(read, clientv3.OpGet(guard, clientv3.WithCountOnly()))
	}
	for _, it := range items {
		key := string(it.key)
		compare = append(compare, clientv3.Compare(clientv3.ModRevision(key), "=", it.revision))
		write = append(write, clientv3.OpPut(key, string(it.out), clientv3.WithIgnoreLease()))
		read = append(read, clientv3.OpGet(key))
	}
	return r.engine.KV.Txn(ctx).If(compare...).Then(write...).Else(read...).Commit()
}

// done notes that items were written.
func (r *run) done(items []*item) {
	for _, it := range items {
		r.result.Changed++
		r.result.ChangedBytes += int64(len(it.key) + len(it.stored))
		r.written += int64(len(it.key) + len(it.out))
	}
}

// refresh takes in what a transaction read that did not write, and returns what is still
// to be written.
func (r *run) refresh(ctx context.Context, items []*item, guards []string, answer *clientv3.TxnResponse) ([]*item, error) {
	for i, guard := range guards {
		if answer.Responses[i].GetResponseRange().Count > 0 {
			continue
		}
		if err := r.restore(ctx, guard, items); err != nil {
			return nil, err
		}
	}
	var still []*item
	for i, it := range items {
		kvs := answer.Responses[len(guards)+i].GetResponseRange().Kvs
		switch {
		case len(kvs) == 0: // deleted
			r.result.Retried++
		case kvs[0].ModRevision == it.revision:
			still = append(still, it)
		default:
			r.result.Retried++
			changed, err := r.judge(ctx, kvs[0])
			if err != nil {
				return nil, err
			}
			if changed != nil {
				still = append(still, changed)
			}
		}
	}
	return still, nil
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
	case codes.ResourceExhausted: // gRPC's refusal of a large message
		return !errors.Is(err, rpctypes.ErrNoSpace) && !errors.Is(err, rpctypes.ErrTooManyRequests)
	}
	return false
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
