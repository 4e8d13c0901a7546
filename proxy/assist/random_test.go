package assist_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/proxy/assist"
)

// gen makes random transactions over few keys and values, so that all outcomes are
// frequent.
type gen struct{ *rand.Rand }

func (g gen) oneIn(n int) bool { return g.IntN(n) == 0 }

func (g gen) key() []byte { return fmt.Appendf(nil, "k%d", g.IntN(5)) }

func (g gen) value() []byte { return []byte([]string{"", "a", "b"}[g.IntN(3)]) }

func (g gen) span() (key, end []byte) {
	switch g.IntN(6) {
	case 0:
		return []byte("k"), []byte("l")
	case 1:
		return g.key(), []byte{0}
	case 2:
		return g.key(), g.key()
	default:
		return g.key(), nil
	}
}

func (g gen) compare() *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(g.IntN(4)), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: g.value()}}
	c.Key, c.RangeEnd = g.span()
	if g.oneIn(3) {
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: int64(g.IntN(3))}
	}
	if g.oneIn(60) {
		c.Key = nil
	}
	return c
}

// txn is one with up to two more inside one another.
func (g gen) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range g.IntN(3) {
		t.Compare = append(t.Compare, g.compare())
	}
	reads := g.oneIn(3)
	for _, ops := range []*[]*pb.RequestOp{&t.Success, &t.Failure} {
		for range g.IntN(3) {
			*ops = append(*ops, g.op(depth, reads))
		}
	}
	return t
}

func (g gen) op(depth int, reads bool) *pb.RequestOp {
	n := g.IntN(8)
	switch {
	case reads || n < 2:
		r := &pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_SortOrder(g.IntN(3)), Limit: int64(g.IntN(4)), KeysOnly: g.oneIn(5)}
		r.Key, r.RangeEnd = g.span()
		if g.oneIn(20) {
			r.Revision = 1 + g.Int64N(200)
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case n < 5 || depth == 0:
		return g.write()
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth - 1)}}
}

func (g gen) write() *pb.RequestOp {
	if g.oneIn(3) {
		d := &pb.DeleteRangeRequest{PrevKv: g.oneIn(2)}
		d.Key, d.RangeEnd = g.span()
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.oneIn(2)}}}
}

// TestDisturbedTransactions has somebody else write while a transaction is under way,
// after its keys were looked at. The answer must be that of an etcd in which the
// transaction came after that, or before if it only reads; to the last revision.
func TestDisturbedTransactions(t *testing.T) {
	for name, limit := range map[string]uint{"limit of 128": 128, "limit of 7": 7} {
		t.Run(name, func(t *testing.T) {
			change := func(c *embed.Config) { c.MaxTxnOps = limit }
			subject, reference := startEtcd(t, change), pb.NewKVClient(startEtcd(t, change))
			counts := map[string]int{}
			g := gen{rand.New(rand.NewPCG(*seed, uint64(limit)))}
			for i := range *operations / 2 {
				request := g.txn(2)
				what := disturb(t, g, request, pb.NewKVClient(subject), reference, limit < 128)
				counts[what]++
				if t.Failed() {
					t.Fatalf("operation %d of seed %d: %s\n%s", i, *seed, what, prototext.Format(request))
				}
			}
			t.Log(counts)
		})
	}
}

// disturb makes one transaction on both sides and reports what became of it.
func disturb(t *testing.T, g gen, request *pb.TxnRequest, subject, reference pb.KVClient, limited bool) string {
	ctx := t.Context()
	other := &pb.TxnRequest{Success: []*pb.RequestOp{g.write()}}
	at, fired := 2+max(0, g.IntN(6)-3), false
	kv := &recorded{KVClient: subject, before: func(call int, _ proto.Message) {
		if call == at {
			_, err := subject.Txn(ctx, other)
			must(t, err)
			fired = true
		}
	}}
	now, err := reference.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	must(t, err)
	got, gotErr := (&assist.Engine{KV: kv, Sealed: everything}).Txn(ctx, request)
	// What writes comes after the disturbance; what only reads may come before it.
	before := gotErr == nil && got.Header.Revision <= now.Header.Revision
	if before && writes(got) {
		t.Errorf("written at revision %d after revision %d", got.Header.Revision, now.Header.Revision)
	}
	if fired && !before {
		_, err := reference.Txn(ctx, other)
		must(t, err)
	}
	want, wantErr := reference.Txn(ctx, request)
	if fired && before {
		_, err := reference.Txn(ctx, other)
		must(t, err)
	}
	if g, w := status.Convert(gotErr), status.Convert(wantErr); g.Code() != w.Code() || g.Message() != w.Message() {
		if limited && g.Message() == "etcdserver: too many operations in txn request" {
			// It does not fit. The two sides are to be the same for the next one.
			level(t, reference, subject)
			return "does not fit"
		}
		if fired && g.Code() == codes.OutOfRange {
			level(t, reference, subject) // a revision that was not there yet
			return "too early"
		}
		if limited && g.Code() == w.Code() {
			return "another fault" // of a request with several, which is checked in parts
		}
		t.Errorf("failed with %v, want %v", gotErr, wantErr)
		return "error"
	}
	if gotErr != nil {
		return "failed"
	}
	for _, r := range []*pb.TxnResponse{got, want} {
		r.Header.ClusterId, r.Header.MemberId, r.Header.RaftTerm = 0, 0, 0
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %s\nwant %s", prototext.Format(got), prototext.Format(want))
	}
	return fmt.Sprintf("%d calls", kv.calls)
}

// writes reports whether an answer is to something that wrote.
func writes(r *pb.TxnResponse) bool {
	return slices.ContainsFunc(r.Responses, func(op *pb.ResponseOp) bool {
		inner := op.GetResponseTxn()
		return op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0 || inner != nil && writes(inner)
	})
}

// level leaves both without keys, at one and the same revision.
func level(t *testing.T, kvs ...pb.KVClient) {
	all := &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	revisions := make([]int64, len(kvs))
	raise := func(i int, n int64) { // by n, 2 or more
		for range n - 1 {
			_, err := kvs[i].Put(t.Context(), &pb.PutRequest{Key: []byte("k0")})
			must(t, err)
		}
		r, err := kvs[i].DeleteRange(t.Context(), all)
		must(t, err)
		revisions[i] = r.Header.Revision
	}
	for i := range kvs {
		raise(i, 2)
	}
	highest := slices.Max(revisions)
	for i := range kvs {
		raise(i, highest+2-revisions[i])
	}
}
