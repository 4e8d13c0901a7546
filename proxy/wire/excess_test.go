package wire

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// megabytes is the size of the largest request that etcd takes by default.
const megabytes = 3 << 19

// filled repeats a part up to the size and puts it into so many fields of a kind,
// one in the other.
func filled(part []byte, size int, around ...protowire.Number) []byte {
	b := bytes.Repeat(part, size/len(part))
	for _, n := range around {
		b = lenField(n, b)
	}
	return b
}

// TestMemoryOfExcess reads messages that are made to take much memory: all of it,
// with what is garbage by the end, is a small multiple of the message's size. Each
// is read as it is and behind a field that leaves it to the generated code.
func TestMemoryOfExcess(t *testing.T) {
	txns := []protowire.Number{2, 4, 2, 4, 2, 4, 2}
	for _, c := range []struct {
		name string
		m    Message
		msg  func(size int) []byte
	}{
		{"empty compares", TxnRequest, func(n int) []byte { return filled(lenField(1), n) }},
		{"empty operations", TxnRequest, func(n int) []byte { return filled(lenField(2), n) }},
		{"empty puts", TxnRequest, func(n int) []byte { return filled(lenField(2, lenField(2)), n) }},
		{"empty ranges", TxnRequest, func(n int) []byte { return filled(lenField(3, lenField(1)), n) }},
		{"empty transactions", TxnRequest, func(n int) []byte { return filled(lenField(3, lenField(4)), n) }},
		{"operands", TxnRequest, func(n int) []byte { return filled(lenField(7), n, 1) }},
		{"revisions to compare with", TxnRequest, func(n int) []byte { return filled(numField(6, 1), n, 1) }},
		{"one oneof", TxnRequest, func(n int) []byte { return filled(slices.Concat(lenField(1), lenField(2)), n, 2) }},
		{"one transaction merged", TxnRequest, func(n int) []byte { return filled(lenField(4), n, 2) }},
		{"compares four deep", TxnRequest, func(n int) []byte { return filled(lenField(1), n, txns[1:]...) }},
		{"operations four deep", TxnRequest, func(n int) []byte { return filled(lenField(2), n, txns[1:]...) }},
		{"oneof four deep", TxnRequest, func(n int) []byte { return filled(slices.Concat(lenField(1), lenField(3)), n, txns...) }},
		{"many small transactions", TxnRequest, func(n int) []byte {
			return filled(lenField(2, lenField(4, lenField(1), lenField(1))), n)
		}},
		{"unknown fields", TxnRequest, func(n int) []byte { return filled(lenField(9), n) }},
		{"unknown fields in an operation", TxnRequest, func(n int) []byte { return filled(lenField(9), n, 2) }},
		{"keys", RangeRequest, func(n int) []byte { return filled(lenField(1, []byte("k")), n) }},
		{"numbers", RangeRequest, func(n int) []byte { return filled(numField(3, 1), n) }},
		{"leaders", ProclaimRequest, func(n int) []byte { return filled(lenField(1), n) }},
		{"watches", WatchRequest, func(n int) []byte { return filled(slices.Concat(lenField(1), lenField(2)), n) }},
		{"packed filters", WatchRequest, func(n int) []byte { return lenField(1, filled([]byte{1}, n, 5)) }},
		{"filters", WatchRequest, func(n int) []byte { return filled(numField(5, 1), n, 1) }},
		{"deep", TxnRequest, func(n int) []byte { return nestedTxn(n / 8) }},
		{"groups", TxnRequest, func(n int) []byte { return bytes.Repeat([]byte{9<<3 | 3}, n) }},
	} {
		for _, size := range []int{20000, megabytes} {
			for _, odd := range [][]byte{nil, numField(1, 1)} {
				msg := slices.Concat(odd, c.msg(size))
				used, err := usedBy(c.m, msg)
				if limit := uint64(20*len(msg) + 3<<20); used > limit {
					t.Errorf("%s, %d bytes (%x): used %d bytes, %d times as much; %v", c.name, len(msg), odd, used, used/uint64(len(msg)), err)
				}
				if err != nil && !errors.Is(err, ErrTooManyOps) && c.name != "groups" {
					t.Errorf("%s, %d bytes: %v", c.name, len(msg), err)
				}
			}
		}
	}
}

// usedBy returns how many bytes of memory Parse takes for a message, with the
// growth of its stack.
func usedBy(m Message, msg []byte) (used uint64, err error) {
	var before, after runtime.MemStats
	done := make(chan struct{})
	runtime.GC() // gives back the stacks of goroutines that have ended
	runtime.ReadMemStats(&before)
	go func() {
		defer close(done)
		err = new(Scan).Parse(m, msg)
		runtime.ReadMemStats(&after)
	}()
	<-done
	return after.TotalAlloc - before.TotalAlloc + max(after.StackInuse, before.StackInuse) - before.StackInuse, err
}
