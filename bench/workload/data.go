package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/rig"
)

// envelopeMagic begins every sealed value (docs/FORMAT.md).
const envelopeMagic = "\x00es"

// writers is how many values are written at once before a measurement.
const writers = 8

// data are keys below a prefix and what was written to them. Values are the same for all targets.
type data struct {
	prefix string
	sealed bool
	values [][]byte
}

// key is the i-th one's. All are of one length and sort by their numbers.
func (d *data) key(i int) []byte { return fmt.Appendf(nil, "%s%06d", d.prefix, i) }

// random fills a value so that nothing can compress it, with the same bytes each time.
func random(i, size int) []byte {
	value := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}).Read(value)
	return value
}

// fill writes count values of a size through the target.
func fill(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string, count, size int) (*data, error) {
	d := &data{prefix: prefix, sealed: t.Sealed, values: make([][]byte, count)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range d.values {
		d.values[i] = random(i, size)
		group.Go(func() error {
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: d.key(i), Value: d.values[i]})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("writing values of %d bytes: %w", size, err)
	}
	return d, nil
}

// page is how many values are compared at once.
const page = 100

// check proves that the target does what it is said to: clients get what was written, etcd holds envelopes exactly when the keys lie under a rule.
// It returns the number of bytes that etcd holds beyond those of a value.
func (d *data) check(ctx context.Context, through, direct *grpc.ClientConn) (overhead int, err error) {
	for first := 0; first < len(d.values); first += page {
		last := min(first+page, len(d.values))
		request := &pb.RangeRequest{Key: d.key(first), RangeEnd: d.key(last)}
		got, err := pb.NewKVClient(through).Range(ctx, request)
		if err != nil {
			return 0, fmt.Errorf("reading through it: %w", err)
		}
		held, err := pb.NewKVClient(direct).Range(ctx, request)
		if err != nil {
			return 0, fmt.Errorf("reading etcd: %w", err)
		}
		if len(got.Kvs) != last-first || len(held.Kvs) != last-first {
			return 0, fmt.Errorf("%d keys through it and %d in etcd, want %d", len(got.Kvs), len(held.Kvs), last-first)
		}
		for i, kv := range held.Kvs {
			extra, err := compare(got.Kvs[i].Value, kv.Value, d.values[first+i], d.sealed)
			if err != nil {
				return 0, fmt.Errorf("looking at %s: %w", kv.Key, err)
			}
			if first+i > 0 && extra != overhead {
				return 0, fmt.Errorf("%d bytes more than the value are held for %s, %d for others", extra, kv.Key, overhead)
			}
			overhead = extra
		}
	}
	return overhead, nil
}

// compare says by how many bytes the held value is longer than the one that was written, or what is wrong with either. It shows neither. What is sealed
// must begin as an envelope and hold no part of the plaintext; what is not must be the plaintext.
func compare(got, held, want []byte, sealed bool) (overhead int, err error) {
	if !bytes.Equal(got, want) {
		return 0, errors.New("a client gets something else than was written")
	}
	if is := bytes.HasPrefix(held, []byte(envelopeMagic)); is != sealed {
		return 0, fmt.Errorf("sealed is %t in etcd, want %t", is, sealed)
	}
	if sealed && readable(held, want) {
		return 0, errors.New("it begins as an envelope in etcd and is readable")
	}
	if !sealed && !bytes.Equal(held, want) {
		return 0, errors.New("etcd holds something else than was written")
	}
	return len(held) - len(want), nil
}

// parts is in how many parts a plaintext is looked for; more would take long for values of 1 MiB.
const parts = 16

// readable says whether any part of a plaintext is held as it is. Plaintexts are random and of 1 KiB at least: no envelope has a part of one by chance.
func readable(held, plaintext []byte) bool {
	for part := range slices.Chunk(plaintext, (len(plaintext)+parts-1)/parts) {
		if bytes.Contains(held, part) {
			return true
		}
	}
	return false
}

// endOfPrefix is the range end of all keys that begin with a prefix whose last byte is not 0xff.
func endOfPrefix(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}
