package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/child"
	"github.com/etcdseal/etcdseal/bench/load"
)

// The shape of the work: that of the table in design.md section 1.
const (
	valueSize   = 1 << 10
	keyCount    = 500
	connections = 4
	inFlight    = 32
)

// envelopeMagic begins every sealed value (docs/FORMAT.md).
const envelopeMagic = "\x00es"

// target is one way to etcd, with keys of its own and the calls over them made ready.
type target struct {
	name    string
	process *child.Process // what stands in between; nil for direct
	sealed  bool           // whether its keys lie under the rule of an etcdseal
	pool    *load.Pool
	prefix  string
	values  [][]byte
	work    map[string]load.Work // by part
}

// newTargets starts what each name needs. etcdseal runs once without TLS, for the targets with and without a matching rule.
func newTargets(ctx context.Context, r *rig, names []string) ([]*target, error) {
	var targets []*target
	var plain *seal
	for i, name := range names {
		t := &target{name: name}
		address, config := r.plain, (*tls.Config)(nil)
		var err error
		switch name {
		case targetTCPCopy:
			t.process, address, err = r.startTCPCopy(ctx)
		case targetGRPCProxy:
			t.process, address, err = r.startGRPCProxy(ctx)
		case targetSeal, targetNoRule:
			t.sealed = name == targetSeal
			if plain == nil {
				plain, err = r.startSeal(ctx, "etcdseal", false)
			}
			if err == nil {
				t.process, address = plain.Process, plain.address
			}
		case targetTLS:
			var s *seal
			if s, err = r.startSeal(ctx, "etcdseal-tls", true); err == nil {
				t.process, address, t.sealed, config = s.Process, s.address, true, r.pki.client
			}
		}
		if err != nil {
			return targets, err
		}
		if t.pool, err = load.Dial(address, connections, inFlight, dialOptions(config)...); err != nil {
			return targets, err
		}
		targets = append(targets, t)
		if err := t.prepare(ctx, i); err != nil {
			return targets, fmt.Errorf("preparing %s: %w", name, err)
		}
	}
	return targets, nil
}

// prepare makes the calls ready and writes every key once through the target. Keys are of one length whatever the target.
func (t *target) prepare(ctx context.Context, i int) error {
	t.prefix = fmt.Sprintf("/registry/configs/%d/", i)
	if t.sealed {
		t.prefix = fmt.Sprintf("%s%d/", sealedPrefix, i)
	}
	var gets []*pb.RangeRequest
	var puts []*pb.PutRequest
	for n := range keyCount {
		key, value := fmt.Appendf(nil, "%s%06d", t.prefix, n), make([]byte, valueSize)
		rand.Read(value)
		t.values = append(t.values, value)
		gets = append(gets, &pb.RangeRequest{Key: key})
		puts = append(puts, &pb.PutRequest{Key: key, Value: value})
	}
	lists := []*pb.RangeRequest{{Key: []byte(t.prefix), RangeEnd: endOfPrefix(t.prefix)}}
	t.work = make(map[string]load.Work)
	for _, w := range []struct {
		part, method string
		minReply     int
		serialise    func() ([][]byte, error)
	}{
		{partGet, pb.KV_Range_FullMethodName, valueSize, func() ([][]byte, error) { return load.Serialise(gets) }},
		{partPut, pb.KV_Put_FullMethodName, 1, func() ([][]byte, error) { return load.Serialise(puts) }},
		{partList, pb.KV_Range_FullMethodName, keyCount * valueSize, func() ([][]byte, error) { return load.Serialise(lists) }},
	} {
		requests, err := w.serialise()
		if err != nil {
			return err
		}
		t.work[w.part] = load.Work{Method: w.method, Requests: requests, MinReply: w.minReply}
	}
	if err := serving(ctx, t.process, t.pool.Conn(0)); err != nil {
		return err
	}
	kv := pb.NewKVClient(t.pool.Conn(0))
	for _, put := range puts {
		if _, err := kv.Put(ctx, put); err != nil {
			return fmt.Errorf("writing a key: %w", err)
		}
	}
	return nil
}

// check proves that the target does what it is said to: clients get what was written, etcd holds envelopes exactly when the keys are sealed.
// It returns the number of bytes that etcd holds beyond those of the value.
func (t *target) check(ctx context.Context, direct *grpc.ClientConn) (overhead int, err error) {
	request := &pb.RangeRequest{Key: []byte(t.prefix), RangeEnd: endOfPrefix(t.prefix)}
	through, err := pb.NewKVClient(t.pool.Conn(0)).Range(ctx, request)
	if err != nil {
		return 0, fmt.Errorf("checking %s: reading through it: %w", t.name, err)
	}
	held, err := pb.NewKVClient(direct).Range(ctx, request)
	if err != nil {
		return 0, fmt.Errorf("checking %s: reading etcd: %w", t.name, err)
	}
	if len(through.Kvs) != keyCount || len(held.Kvs) != keyCount {
		return 0, fmt.Errorf("checking %s: %d keys through it and %d in etcd, want %d", t.name, len(through.Kvs), len(held.Kvs), keyCount)
	}
	for i, kv := range held.Kvs {
		if !bytes.Equal(through.Kvs[i].Value, t.values[i]) {
			return 0, fmt.Errorf("checking %s: a client gets something else than was written to %s", t.name, kv.Key)
		}
		if sealed := bytes.HasPrefix(kv.Value, []byte(envelopeMagic)); sealed != t.sealed {
			return 0, fmt.Errorf("checking %s: sealed is %t for %s in etcd, want %t", t.name, sealed, kv.Key, t.sealed)
		}
		if extra := len(kv.Value) - valueSize; i > 0 && extra != overhead {
			return 0, fmt.Errorf("checking %s: %d bytes more than the value are held for %s, %d for others", t.name, extra, kv.Key, overhead)
		}
		overhead = len(kv.Value) - valueSize
	}
	return overhead, nil
}

// endOfPrefix is the range end of all keys that begin with a prefix whose last byte is not 0xff.
func endOfPrefix(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}
