package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// Get implements dek.Store.
func (s *Store) Get(ctx context.Context, id envelope.ID) (dek.Stored, error) {
	stored, err := s.get(ctx, id)
	return stored, failed(ctx, "reading record of DEK "+id.String(), err)
}

func (s *Store) get(ctx context.Context, id envelope.ID) (dek.Stored, error) {
	kvs, err := s.read(ctx, s.recordKey(id))
	if err != nil {
		return dek.Stored{}, err
	}
	if len(kvs.Kvs) > 0 {
		return dek.Stored{ID: id, Data: kvs.Kvs[0].Value, Revision: kvs.Kvs[0].ModRevision}, nil
	}
	kvs, err = s.read(ctx, s.tombstoneKey(id), clientv3.WithKeysOnly())
	switch {
	case err != nil:
		return dek.Stored{}, err
	case len(kvs.Kvs) > 0:
		return dek.Stored{}, dek.ErrTombstoned
	}
	return dek.Stored{}, dek.ErrNotFound
}

// List implements dek.Store.
func (s *Store) List(ctx context.Context) (dek.Change, error) {
	whole, _, err := s.list(ctx)
	return whole, err
}

// list reads everything and says at which revision it is.
func (s *Store) list(ctx context.Context) (whole dek.Change, revision int64, err error) {
	kvs, err := s.read(ctx, s.prefix, clientv3.WithPrefix())
	if err != nil {
		return dek.Change{}, 0, failed(ctx, "reading keyring", err)
	}
	whole.Whole, whole.Revision = true, kvs.Header.Revision
	for _, kv := range kvs.Kvs {
		switch id, tombstone, ok := s.parseKey(kv.Key); {
		case !ok:
		case tombstone:
			whole.Tombstones = append(whole.Tombstones, id)
		default:
			whole.Records = append(whole.Records, dek.Stored{ID: id, Data: kv.Value, Revision: kv.ModRevision})
		}
	}
	return whole, kvs.Header.Revision, nil
}

// Ping implements dek.Store. The prefix itself is no key of the keyring's.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.read(ctx, s.prefix, clientv3.WithCountOnly())
	return failed(ctx, "asking etcd", err)
}

// read is a linearizable read.
func (s *Store) read(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	before := s.position()
	kvs, err := s.client.Get(ctx, key, opts...)
	if err != nil {
		return nil, err
	}
	s.note(before, kvs.Header)
	return kvs, nil
}

// Create implements dek.Store.
func (s *Store) Create(ctx context.Context, id envelope.ID, data []byte) (int64, error) {
	key := s.recordKey(id)
	revision, done, err := s.write(ctx, id, clientv3.Compare(clientv3.CreateRevision(key), "=", 0), clientv3.OpPut(key, string(data)))
	if err == nil && !done {
		err = dek.ErrExists
	}
	return revision, failed(ctx, "creating record of DEK "+id.String(), err)
}

// Update implements dek.Store.
func (s *Store) Update(ctx context.Context, id envelope.ID, data []byte, revision int64) (int64, error) {
	key := s.recordKey(id)
	updated, done, err := s.write(ctx, id, at(key, revision), clientv3.OpPut(key, string(data)))
	if err == nil && !done {
		err = dek.ErrConflict
	}
	return updated, failed(ctx, "updating record of DEK "+id.String(), err)
}

// Bury implements dek.Burier.
func (s *Store) Bury(ctx context.Context, id envelope.ID, tombstone []byte, revision int64) error {
	key := s.recordKey(id)
	_, done, err := s.write(ctx, id, at(key, revision), clientv3.OpDelete(key), clientv3.OpPut(s.tombstoneKey(id), string(tombstone)))
	if err == nil && !done {
		err = dek.ErrConflict
	}
	return failed(ctx, "burying record of DEK "+id.String(), err)
}

// Exhume implements dek.Burier. A record and a tombstone at once is no state of the
// keyring's, so that comparing with the tombstone is enough for anything but a record that
// somebody wrote by hand.
func (s *Store) Exhume(ctx context.Context, id envelope.ID, data []byte) (int64, error) {
	key, tombstone := s.recordKey(id), s.tombstoneKey(id)
	revision, err := s.exhume(ctx, key, tombstone, data)
	return revision, failed(ctx, "putting back record of DEK "+id.String(), err)
}

func (s *Store) exhume(ctx context.Context, key, tombstone string, data []byte) (int64, error) {
	before := s.position()
	answer, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(tombstone), ">", 0), clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpDelete(tombstone), clientv3.OpPut(key, string(data))).
		Else(clientv3.OpGet(key, clientv3.WithCountOnly())).
		Commit()
	if err != nil {
		return 0, err
	}
	s.note(before, answer.Header)
	switch {
	case answer.Succeeded:
		return answer.Header.Revision, nil
	case answer.Responses[0].GetResponseRange().Count > 0:
		return 0, dek.ErrExists
	}
	return 0, dek.ErrNotFound
}

// at compares a key with a revision that it has. A revision of 0 would be that of a key
// that is not there, and is never one that was read.
func at(key string, revision int64) clientv3.Cmp {
	if revision <= 0 {
		revision = -1
	}
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// write does ops if a comparison holds and there is no tombstone, and reports whether
// it did. The error is dek.ErrTombstoned if there is one.
func (s *Store) write(ctx context.Context, id envelope.ID, If clientv3.Cmp, ops ...clientv3.Op) (revision int64, done bool, err error) {
	tombstone := s.tombstoneKey(id)
	before := s.position()
	answer, err := s.client.Txn(ctx).
		If(If, clientv3.Compare(clientv3.CreateRevision(tombstone), "=", 0)).
		Then(ops...).
		Else(clientv3.OpGet(tombstone, clientv3.WithCountOnly())).
		Commit()
	if err != nil {
		return 0, false, err
	}
	s.note(before, answer.Header)
	if !answer.Succeeded && answer.Responses[0].GetResponseRange().Count > 0 {
		return 0, false, dek.ErrTombstoned
	}
	return answer.Header.Revision, answer.Succeeded, nil
}

// failed says what failed, and marks what may pass as dek.ErrStoreUnavailable. An end
// of ctx by its caller is that and nothing else.
func failed(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", what, dek.ErrStoreUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// unavailable reports whether an error may pass by itself: etcd is not reached, has no
// leader, or has too much to do.
func unavailable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, rpctypes.ErrTooManyRequests) {
		return true
	}
	code := status.Code(err)
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = e.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// position is how far an etcd was seen to be.
type position struct {
	cluster  uint64
	revision int64
}

func (s *Store) position() position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// note takes in the header of an answer to a linearizable call. before is the position
// when the call was made: an answer from behind it, or from another cluster, is that of
// an etcd that was put back to an older state, of which a watch would say nothing.
func (s *Store) note(before position, h *etcdserverpb.ResponseHeader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	other := before.cluster != 0 && before.cluster != h.ClusterId
	if !other && h.Revision >= before.revision {
		s.seen = position{h.ClusterId, max(h.Revision, s.seen.revision)}
		return
	}
	s.seen = position{h.ClusterId, h.Revision}
	select {
	case s.fell <- struct{}{}:
	default:
	}
}

// ClusterID implements dek.Store.
func (s *Store) ClusterID() uint64 { return s.position().cluster }
