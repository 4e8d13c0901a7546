package dektest

import (
	"context"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

func TestMemory(t *testing.T) {
	RunStore(t, func(*testing.T) (a, b dek.Store) {
		m := NewMemory()
		return m, m
	})
}

// TestBrokenStores shows that the checks can fail: each store breaks one promise.
func TestBrokenStores(t *testing.T) {
	tests := []struct {
		check string
		store dek.Store
	}{
		{"nothing there", &broken{Memory: NewMemory(), get: func(s dek.Stored, _ error) (dek.Stored, error) { return s, nil }}},
		{"create and get", &broken{Memory: NewMemory(), get: func(s dek.Stored, err error) (dek.Stored, error) { s.Revision++; return s, err }}},
		{"create and get", &broken{Memory: NewMemory(), get: func(s dek.Stored, err error) (dek.Stored, error) {
			s.Data = append([]byte(" "), s.Data...)
			return s, err
		}}},
		{"create is create only", &broken{Memory: NewMemory(), blind: true}},
		{"of many creates one wins", &broken{Memory: NewMemory(), blind: true}},
		{"update compares the revision", &broken{Memory: NewMemory(), blind: true}},
		{"update does not create", &broken{Memory: NewMemory(), blind: true}},
		{"of many updates one wins", &broken{Memory: NewMemory(), blind: true}},
		{"list", &broken{Memory: NewMemory(), list: func(c dek.Change) dek.Change { c.Records = c.Records[1:]; return c }}},
		{"record keys", &broken{Memory: NewMemory(), key: "/same"}},
		{"ended context", &broken{Memory: NewMemory(), blind: true}},
		{"watch begins with everything", &broken{Memory: NewMemory(), list: func(c dek.Change) dek.Change { c.Whole = false; return c }}},
		{"watch begins with everything", &broken{Memory: NewMemory(), list: func(c dek.Change) dek.Change { c.Records = nil; return c }}},
		{"bury", &broken{Memory: NewMemory(), list: func(c dek.Change) dek.Change { c.Tombstones = nil; return c }}},
		{"exhume undoes a burial", &broken{Memory: NewMemory(), list: func(c dek.Change) dek.Change { c.Records = nil; return c }}},
		{"bury compares the revision", &broken{Memory: NewMemory(), blind: true}},
	}
	for _, tt := range tests {
		for _, c := range checks {
			if c.name != tt.check {
				continue
			}
			if err := c.run(&subject{ctx: t.Context(), a: tt.store, b: tt.store}); err == nil {
				t.Errorf("%s: passes with a store that breaks it", c.name)
			}
		}
	}
}

// broken is a store that breaks promises.
type broken struct {
	*Memory
	blind bool // writes whatever is there
	key   string
	get   func(dek.Stored, error) (dek.Stored, error)
	list  func(dek.Change) dek.Change
}

func (b *broken) Get(ctx context.Context, id envelope.ID) (dek.Stored, error) {
	s, err := b.Memory.Get(ctx, id)
	if b.get != nil {
		return b.get(s, err)
	}
	return s, err
}

func (b *broken) List(ctx context.Context) (dek.Change, error) {
	c, err := b.Memory.List(ctx)
	if b.list != nil && err == nil {
		c = b.list(c)
	}
	return c, err
}

func (b *broken) Create(ctx context.Context, id envelope.ID, data []byte) (int64, error) {
	if b.blind {
		b.Put(id, data)
		s, err := b.Memory.Get(context.WithoutCancel(ctx), id)
		return s.Revision, err
	}
	return b.Memory.Create(ctx, id, data)
}

func (b *broken) Update(ctx context.Context, id envelope.ID, data []byte, revision int64) (int64, error) {
	if b.blind {
		return b.Create(ctx, id, data)
	}
	return b.Memory.Update(ctx, id, data, revision)
}

func (b *broken) Bury(ctx context.Context, id envelope.ID, data []byte, revision int64) error {
	if b.blind {
		b.Remove(id)
		return nil
	}
	return b.Memory.Bury(ctx, id, data, revision)
}

func (b *broken) Watch(ctx context.Context, resync <-chan struct{}, f func(dek.Change)) error {
	return b.Memory.Watch(ctx, resync, func(c dek.Change) {
		if b.list != nil && c.Whole {
			c = b.list(c)
		}
		f(c)
	})
}

func (b *broken) RecordKey(id envelope.ID) []byte {
	if b.key != "" {
		return []byte(b.key)
	}
	return b.Memory.RecordKey(id)
}
