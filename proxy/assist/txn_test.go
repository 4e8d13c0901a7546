package assist_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/proxy/assist"
)

func valueIs(key, value string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(value)}}
}

func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func getOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func inOp(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func list[T any](n int, one func(i int) T) []T {
	l := make([]T, n)
	for i := range l {
		l[i] = one(i)
	}
	return l
}

// lab is an etcd behind an engine whose calls are counted.
type lab struct {
	kv     *recorded
	engine *assist.Engine
}

func newLab(t *testing.T) *lab {
	l := &lab{kv: &recorded{KVClient: pb.NewKVClient(startEtcd(t, nil))}}
	l.engine = &assist.Engine{KV: l.kv, Sealed: everything}
	return l
}

func (l *lab) put(t *testing.T, key, value string) {
	t.Helper()
	_, err := l.kv.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	must(t, err)
}

// TestCalls bounds what a transaction costs: twice its plain form in what is usual,
// and more only at etcd's limit of operations.
func TestCalls(t *testing.T) {
	l := newLab(t)
	l.put(t, "a", "v")
	puts := list(128, func(i int) *pb.RequestOp { return putOp(fmt.Sprint("p", i), "x") })
	others := list(128, func(i int) *pb.RequestOp { return putOp(fmt.Sprint("q", i), "x") })
	many := list(128, func(i int) *pb.Compare { return valueIs("a", "v") })
	distinct := list(128, func(i int) *pb.Compare {
		c := valueIs(fmt.Sprint("absent", i), "v")
		c.Result = pb.Compare_NOT_EQUAL
		return c
	})
	for name, c := range map[string]struct {
		txn       *pb.TxnRequest
		succeeded bool
		calls     int
	}{
		"compare and swap":         {&pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: []*pb.RequestOp{putOp("b", "w")}, Failure: []*pb.RequestOp{getOp("a")}}, true, 2},
		"compare and swap, failed": {&pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "x")}, Success: []*pb.RequestOp{putOp("b", "w")}, Failure: []*pb.RequestOp{getOp("a")}}, false, 2},
		"reading":                  {&pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: []*pb.RequestOp{getOp("a")}}, true, 2},
		"nothing but comparing":    {&pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}}, true, 1},
		"nested": {&pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: []*pb.RequestOp{
			inOp(&pb.TxnRequest{Compare: []*pb.Compare{valueIs("b", "v")}, Failure: []*pb.RequestOp{putOp("c", "w")}})}}, true, 2},
		"128 writes":                   {&pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: puts}, true, 2},
		"128 writes or 128 others":     {&pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: puts, Failure: others}, true, 3},
		"128 compares of one key":      {&pb.TxnRequest{Compare: many, Success: puts}, true, 2},
		"128 compares of several keys": {&pb.TxnRequest{Compare: distinct, Success: others, Failure: []*pb.RequestOp{putOp("b", "x")}}, false, 3},
		"128 reads":                    {&pb.TxnRequest{Compare: many, Success: list(128, func(int) *pb.RequestOp { return getOp("a") })}, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l.kv.calls = 0
			got, err := l.engine.Txn(t.Context(), c.txn)
			must(t, err)
			ops := c.txn.Success
			if !c.succeeded {
				ops = c.txn.Failure
			}
			if got.Succeeded != c.succeeded || len(got.Responses) != len(ops) {
				t.Errorf("succeeded is %v with %d answers, want %v", got.Succeeded, len(got.Responses), c.succeeded)
			}
			if l.kv.calls != c.calls {
				t.Errorf("it took %d calls, want %d", l.kv.calls, c.calls)
			}
		})
	}
}

// TestManyComparedKeys looks at more keys than one transaction can read.
func TestManyComparedKeys(t *testing.T) {
	l := newLab(t)
	for i := range 300 {
		l.put(t, fmt.Sprint("k", i), "v")
	}
	got, err := l.engine.Txn(t.Context(), &pb.TxnRequest{Failure: []*pb.RequestOp{getOp("k0")}, Success: list(3, func(i int) *pb.RequestOp {
		return inOp(&pb.TxnRequest{Compare: list(100, func(j int) *pb.Compare {
			c := valueIs(fmt.Sprint("k", 100*i+j), "v")
			if i > 0 {
				c.Result = pb.Compare_LESS
			}
			return c
		}), Failure: []*pb.RequestOp{putOp(fmt.Sprint("out", i), "v")}})
	})})
	must(t, err)
	if inner := got.Responses; !inner[0].GetResponseTxn().Succeeded || inner[1].GetResponseTxn().Succeeded || len(inner[2].GetResponseTxn().Responses) != 1 {
		t.Errorf("got %v", got)
	}
}

// TestWithoutEnd ends tries that are disturbed each time.
func TestWithoutEnd(t *testing.T) {
	l := newLab(t)
	l.put(t, "a", "v")
	retried := 0
	l.engine.Attempts, l.engine.Retried = 5, func() { retried++ }
	l.kv.before = func(call int, _ proto.Message) {
		if call%2 == 0 {
			l.put(t, "a", "v")
		}
	}
	swap := &pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: []*pb.RequestOp{putOp("b", "w")}}
	_, err := l.engine.Txn(t.Context(), swap)
	if status.Code(err) != codes.Unavailable || retried != 4 {
		t.Errorf("after %d more tries: %v", retried, err)
	}
	l.engine.Pause = func(ctx context.Context, _ int) error { return context.DeadlineExceeded }
	if _, err = l.engine.Txn(t.Context(), swap); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("at the deadline: %v", err)
	}
	r, err := l.kv.KVClient.Range(t.Context(), &pb.RangeRequest{Key: []byte("b")})
	must(t, err)
	if r.Count != 0 {
		t.Error("a transaction that failed has written")
	}
}

// TestReadingAtACompactedRevision is not the reader's fault.
func TestReadingAtACompactedRevision(t *testing.T) {
	l := newLab(t)
	l.put(t, "a", "v")
	l.kv.before = func(call int, _ proto.Message) {
		if call != 2 {
			return
		}
		l.put(t, "a", "w")
		r, err := l.kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: []byte("x")})
		must(t, err)
		_, err = l.kv.Compact(t.Context(), &pb.CompactionRequest{Revision: r.Header.Revision})
		must(t, err)
	}
	got, err := l.engine.Txn(t.Context(), &pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: []*pb.RequestOp{getOp("a")}, Failure: []*pb.RequestOp{getOp("a")}})
	must(t, err)
	if got.Succeeded || string(got.Responses[0].GetResponseRange().Kvs[0].Value) != "x" || l.kv.calls != 4 {
		t.Errorf("after %d calls: %v", l.kv.calls, got)
	}
}

// TestErrorsAreEtcds compares with what etcd says to the very request.
func TestErrorsAreEtcds(t *testing.T) {
	l := newLab(t)
	l.put(t, "a", "v")
	dup := []*pb.RequestOp{putOp("b", "w"), putOp("b", "x")}
	swap := []*pb.Compare{valueIs("a", "v")}
	future := getOp("a")
	future.GetRequestRange().Revision = math.MaxInt64 - 1
	for name, txn := range map[string]*pb.TxnRequest{
		"no key to compare":                     {Compare: []*pb.Compare{valueIs("", "v")}},
		"no key to compare and duplicate keys":  {Compare: []*pb.Compare{valueIs("", "v")}, Success: dup},
		"no key to compare and 129 operations":  {Compare: []*pb.Compare{valueIs("", "v")}, Success: list(129, func(int) *pb.RequestOp { return getOp("a") })},
		"no key to compare and 128 operations":  {Compare: []*pb.Compare{valueIs("", "v")}, Success: list(128, func(int) *pb.RequestOp { return getOp("a") })},
		"duplicate keys":                        {Compare: swap, Failure: dup},
		"129 operations":                        {Compare: swap, Failure: list(129, func(int) *pb.RequestOp { return getOp("a") })},
		"129 comparisons":                       {Compare: list(129, func(int) *pb.Compare { return swap[0] }), Success: dup[:1]},
		"129 comparisons, reading":              {Compare: list(129, func(int) *pb.Compare { return swap[0] }), Success: []*pb.RequestOp{getOp("a")}},
		"129 comparisons, and nothing else":     {Compare: list(129, func(int) *pb.Compare { return swap[0] })},
		"an empty operation":                    {Compare: swap, Success: []*pb.RequestOp{{}}},
		"a lease that is not there":             {Compare: swap, Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), Lease: 4711}}}}},
		"the future":                            {Compare: swap, Success: []*pb.RequestOp{future}},
		"the future in the branch not taken":    {Compare: swap, Failure: []*pb.RequestOp{future}},
		"the future beside a write":             {Compare: swap, Success: []*pb.RequestOp{future, dup[0]}},
		"a value to keep that is not there":     {Compare: swap, Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("z"), IgnoreValue: true}}}}},
		"a request that is too large":           {Compare: swap, Success: []*pb.RequestOp{putOp("b", string(make([]byte, 1600<<10)))}},
		"129 operations in a nested one":        {Compare: swap, Success: []*pb.RequestOp{inOp(&pb.TxnRequest{Success: list(128, func(int) *pb.RequestOp { return getOp("a") })})}},
		"an unknown order in a range by value":  {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), SortTarget: 4, SortOrder: 9}}}}},
		"an unknown order beside a comparison":  {Compare: swap, Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), SortTarget: 4, SortOrder: 9}}}}},
		"an unknown result of a comparison":     {Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VALUE, Result: 17}}},
		"an unknown result, and nothing there":  {Compare: []*pb.Compare{{Key: []byte("y"), Target: pb.Compare_VALUE, Result: 17}}},
		"an unknown target beside a comparison": {Compare: []*pb.Compare{{Key: []byte("a"), Target: 17}, swap[0]}},
	} {
		t.Run(name, func(t *testing.T) {
			got, gotErr := l.engine.Txn(t.Context(), txn)
			want, wantErr := l.kv.KVClient.Txn(t.Context(), txn)
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || got.GetSucceeded() != want.GetSucceeded() {
				t.Errorf("got %v, %v; etcd says %v, %v", got, gotErr, want, wantErr)
			}
		})
	}
}

// mute is a KV whose answers to transactions say too little.
type mute struct {
	assist.KV
	asked int
}

func (m *mute) Txn(context.Context, *pb.TxnRequest, ...grpc.CallOption) (*pb.TxnResponse, error) {
	m.asked++
	return &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: 7}, Succeeded: true}, nil
}

func (m *mute) Range(context.Context, *pb.RangeRequest, ...grpc.CallOption) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 6}}, nil
}

// TestAppliedIsNotMadeAgain: a transaction that was carried out is never tried again,
// whatever its answer is.
func TestAppliedIsNotMadeAgain(t *testing.T) {
	kv := &mute{}
	engine := &assist.Engine{KV: kv, Sealed: everything}
	_, err := engine.Txn(t.Context(), &pb.TxnRequest{
		Compare: []*pb.Compare{valueIs("a", "1")}, Success: []*pb.RequestOp{getOp("b")}, Failure: []*pb.RequestOp{putOp("b", "2")},
	})
	if kv.asked != 1 || status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), "applied at revision 7") {
		t.Errorf("asked %d times: %v", kv.asked, err)
	}
}

// TestWithoutSpace lets those read that may read, and nobody write.
func TestWithoutSpace(t *testing.T) {
	conn := startEtcd(t, nil)
	kv := pb.NewKVClient(conn)
	engine := &assist.Engine{KV: kv, Sealed: everything}
	_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: []byte("v")})
	must(t, err)
	_, err = pb.NewMaintenanceClient(conn).Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
	must(t, err)
	reads, err := engine.Txn(t.Context(), &pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", "v")}, Success: []*pb.RequestOp{getOp("a")}})
	if err != nil || !reads.Succeeded {
		t.Errorf("reading: %v, %v", reads, err)
	}
	for _, branch := range []string{"v", "w"} {
		txn := &pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", branch)}, Success: []*pb.RequestOp{putOp("b", "w")}}
		_, got := engine.Txn(t.Context(), txn)
		_, want := kv.Txn(t.Context(), txn)
		if fmt.Sprint(got) != fmt.Sprint(want) || got == nil {
			t.Errorf("writing: %v, etcd says %v", got, want)
		}
	}
}

// TestLimitsOfSortedRanges compares with etcd, in every order.
func TestLimitsOfSortedRanges(t *testing.T) {
	l := newLab(t)
	for i := range 40 {
		l.put(t, fmt.Sprintf("k%02d", i), fmt.Sprint("v", i*7%5))
	}
	for order := range pb.RangeRequest_SortOrder_name {
		for _, limit := range []int64{-1, 0, 1, 5, 39, 40, 41, math.MaxInt64 - 1, math.MaxInt64} {
			for _, filter := range []int64{0, 7} {
				r := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_SortOrder(order), Limit: limit, MinModRevision: filter, KeysOnly: limit == 5}
				got, err := l.engine.Range(t.Context(), r)
				must(t, err)
				want, err := l.kv.KVClient.Range(t.Context(), r)
				must(t, err)
				if !proto.Equal(got, want) {
					t.Errorf("%v: got %v\nwant %v", r, got, want)
				}
			}
		}
	}
}
