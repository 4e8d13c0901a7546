// Package filestore keeps the keyring's records in one file. It is for tests, for
// tools, and for whoever wants no key in etcd that its clients did not write; then the
// file has to be backed up together with etcd, for a snapshot of etcd does not hold it.
//
// The file is JSON, has mode 0600, and is replaced as a whole: what is written is
// flushed to the disk under another name, renamed, and the directory flushed. Writers
// take an flock on a second file, the name with ".lock" appended, so that several
// processes may share a keyring on one machine; every read sees what the others wrote.
// A file on a network file system is only as safe as its locks are. Records are never
// removed.
package filestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

const (
	// version is of the file's format.
	version = 1
	// maxFileSize is more than a thousand records of the largest kind, in
	// bytes.
	maxFileSize = 64 << 20
	// lockPoll is how often a lock that another process has is tried.
	lockPoll = 10 * time.Millisecond
)

// Store is a keyring in a file. It is safe for concurrent use.
type Store struct {
	path string
	lock sync.Mutex // writers of this process, before they take the file's lock
}

var _ dek.Store = (*Store)(nil)

// Open returns the store in a file, which need not exist yet, unlike its directory. A
// file that others than its owner may read or write is refused.
func Open(path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening keyring file: %w", err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("opening keyring file %s: its directory does not exist", path)
	}
	s := &Store{path: path}
	if _, err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// Get implements dek.Store.
func (s *Store) Get(ctx context.Context, id envelope.ID) (dek.Stored, error) {
	if err := ctx.Err(); err != nil {
		return dek.Stored{}, err
	}
	c, err := s.load()
	if err != nil {
		return dek.Stored{}, err
	}
	r, ok := c.records[id]
	if !ok {
		return dek.Stored{}, fmt.Errorf("reading record of DEK %s: %w", id, dek.ErrNotFound)
	}
	return dek.Stored{ID: id, Data: r.Record, Revision: r.Revision}, nil
}

// List implements dek.Store.
func (s *Store) List(ctx context.Context) (dek.Change, error) {
	if err := ctx.Err(); err != nil {
		return dek.Change{}, err
	}
	c, err := s.load()
	if err != nil {
		return dek.Change{}, err
	}
	whole := dek.Change{Whole: true, Revision: c.revision}
	for id, r := range c.records {
		whole.Records = append(whole.Records, dek.Stored{ID: id, Data: r.Record, Revision: r.Revision})
	}
	return whole, nil
}

// Create implements dek.Store. data is JSON.
func (s *Store) Create(ctx context.Context, id envelope.ID, data []byte) (int64, error) {
	revision, err := s.write(ctx, id, data, func(_ record, exists bool) error {
		if exists {
			return dek.ErrExists
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("creating record of DEK %s: %w", id, err)
	}
	return revision, nil
}

// Update implements dek.Store. data is JSON.
func (s *Store) Update(ctx context.Context, id envelope.ID, data []byte, revision int64) (int64, error) {
	updated, err := s.write(ctx, id, data, func(r record, exists bool) error {
		if !exists || r.Revision != revision {
			return dek.ErrConflict
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("updating record of DEK %s: %w", id, err)
	}
	return updated, nil
}

// Ping implements dek.Store: the file can be read, or does not exist yet.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.List(ctx)
	return err
}

// Watch implements dek.Store. Nobody tells it of changes: it reads the file at first and
// after each receive from resync.
func (s *Store) Watch(ctx context.Context, resync <-chan struct{}, f func(dek.Change)) error {
	for {
		whole, err := s.List(ctx)
		if err != nil {
			return err
		}
		f(whole)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-resync:
		}
	}
}

// RecordKey implements dek.Store: there is no key of etcd.
func (s *Store) RecordKey(envelope.ID) []byte { return nil }

// ClusterID implements dek.Store: there is no cluster.
func (s *Store) ClusterID() uint64 { return 0 }

// Close implements dek.Store. There is nothing to give back.
func (s *Store) Close() error { return nil }

// write changes one record if allow, which is given the record that is there, returns
// no error.
func (s *Store) write(ctx context.Context, id envelope.ID, data []byte, allow func(r record, exists bool) error) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if !json.Valid(data) {
		return 0, errors.New("it is not JSON")
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	unlock, err := s.flock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	c, err := s.load()
	if err != nil {
		return 0, err
	}
	r, exists := c.records[id]
	if err := allow(r, exists); err != nil {
		return 0, err
	}
	c.revision++
	c.records[id] = record{Revision: c.revision, Record: slices.Clone(data)}
	if err := s.save(c); err != nil {
		return 0, err
	}
	return c.revision, nil
}

// flock takes the lock against other processes.
func (s *Store) flock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking keyring file: %w", err)
	}
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("locking keyring file %s: %w", s.path, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("locking keyring file %s, which another process has locked: %w: %w", s.path, dek.ErrStoreUnavailable, ctx.Err())
		}
	}
}
