// Package difftest compares two etcd endpoints by sending the same random sequence of operations to both: a reference, which is a plain etcd, and a
// subject, which claims to behave like one. Every answer must be equal: messages, revisions, counts, gRPC codes, error texts, metadata, and the events
// of watches. It is meant for tests and guards the promise that clients see no difference between etcd and etcdseal in front of etcd.
//
// The sequence is a function of the seed and of the reference's answers alone, so that a run against fresh endpoints is repeated by its seed.
// Operations follow one another, because revisions could not be compared otherwise. What etcd itself leaves to chance is not compared: where the
// responses of a watch, or the chunks of a RangeStream, are cut, the header of an event, and the order of leases. The tests of this package take
// -difftest.seed and -difftest.operations to repeat a run or to make other ones.
//
// What the subject stores is not looked at; a caller that wants to know reads the etcd behind it.
package difftest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// Config is what Run needs.
type Config struct {
	// Reference and Subject are connections to the two endpoints. Both must be fresh, at revision 1, and nothing else may write to them during the
	// run. Messages of any size must be allowed to be received.
	Reference, Subject grpc.ClientConnInterface
	// Seed decides the whole sequence.
	Seed uint64
	// Operations is how many are made.
	Operations int
	// Sealed is the prefix whose values the subject seals, such as "/registry/secrets/". About half of all keys are under it, others just outside.
	// It must end with a slash.
	Sealed string
	// MaxRequestBytes is the request limit of both endpoints, in bytes (etcd's --max-request-bytes). Zero means etcd's default of 1.5 MiB.
	MaxRequestBytes int
	// SealedValueOrder also compares by VALUE, and sorts by VALUE, where keys under Sealed are concerned. Without it only other keys are.
	SealedValueOrder bool
	// Patience bounds the wait for any one answer; one that does not come counts as a difference. Zero means a minute.
	Patience time.Duration
	// Logf receives a line about what the run covered; nil means nobody.
	Logf func(format string, args ...any)
}

// Mismatch is the error of Run when the endpoints differ.
type Mismatch struct {
	Seed      uint64
	Operation int    // counted from zero
	Request   string // the operation that showed the difference, shortened
	Diff      string // reference "-", subject "+"
}

// Error tells how to repeat the run and shows the difference, keys and values included.
func (m *Mismatch) Error() string {
	return fmt.Sprintf("comparing answers: seed %d, operation %d: the subject differs\nrequest: %s\n(-reference +subject)\n%s", m.Seed, m.Operation, m.Request, m.Diff)
}

// Run makes the operations and compares the answers. It returns a *Mismatch at the first difference, and any other error when the reference cannot be
// used. Streams that
// Run opened are closed when it returns.
func Run(ctx context.Context, cfg Config) error {
	if cfg.MaxRequestBytes == 0 {
		cfg.MaxRequestBytes = 3 << 19
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Minute
	}
	if cfg.Logf == nil {
		cfg.Logf = func(string, ...any) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := &engine{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), space: newSpace(cfg.Sealed), covered: make(map[string]int), codes: make(map[string]int),
		reference: &endpoint{name: "reference", conn: cfg.Reference}, subject: &endpoint{name: "subject", conn: cfg.Subject},
	}
	defer e.closeStreams()
	if err := e.begin(ctx); err != nil {
		return err
	}
	choices := e.choices()
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	for e.operation = 0; e.operation < cfg.Operations; e.operation++ {
		if err := e.step(ctx, choices, e.rng.IntN(total)); err != nil {
			return err
		}
	}
	if err := e.settleAll(ctx); err != nil {
		return err
	}
	cfg.Logf("seed %d: %d operations, revision %d; operations %v; outcomes %v; %d events", cfg.Seed, cfg.Operations, e.rev, e.covered, e.codes, e.events)
	return nil
}

// engine is the state of one run. It is used by the goroutine of Run only.
type engine struct {
	cfg                Config
	rng                *rand.Rand
	space              *space
	reference, subject *endpoint
	operation          int
	rev, compacted     int64 // as the reference's answers said
	pairs              []*pair
	covered, codes     map[string]int // for the closing line
	events             int
	early              int // how often levelEarly made two sides equal
}

// choice is one kind of operation and how often it is made, relative to the others.
type choice struct {
	name   string
	weight int
	make   func(context.Context) error
}

func (e *engine) choices() []choice {
	return []choice{
		{"put", 240, e.put}, {"range", 200, e.rangeKeys}, {"rangeStream", 60, e.rangeStream}, {"delete", 70, e.deleteRange}, {"txn", 220, e.txn},
		{"compact", 6, e.compact}, {"bad", 30, e.bad}, {"huge", 3, e.huge},
		{"leaseGrant", 15, e.leaseGrant}, {"leaseRevoke", 8, e.leaseRevoke}, {"leaseTimeToLive", 10, e.leaseTimeToLive}, {"leases", 4, e.leases},
		{"leaseKeepAlive", 6, e.leaseKeepAlive},
		{"election", 40, e.election}, {"lock", 20, e.lock},
		{"watch", 40, e.watch}, {"watchCancel", 20, e.watchCancel}, {"watchSettle", 20, e.watchSettle}, {"watchClose", 4, e.watchClose},
	}
}

func (e *engine) step(ctx context.Context, choices []choice, n int) error {
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			e.covered[c.name]++
			return c.make(ctx)
		}
	}
	panic("difftest: a number beyond the sum of all weights was drawn")
}

// begin reads both revisions, which must be equal, and learns each endpoint's ids.
func (e *engine) begin(ctx context.Context) error {
	_, err := call(ctx, e, pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte("\x00"), RangeEnd: []byte("\x00")}, &pb.RangeResponse{}, nil)
	if err == nil && e.rev != 1 {
		return fmt.Errorf("reading first revision: it is %d, not that of a fresh etcd", e.rev)
	}
	return err
}

// chance is true once in n times.
func (e *engine) chance(n int) bool { return e.rng.IntN(n) == 0 }

// mismatch makes the error for a difference shown by request.
func (e *engine) mismatch(request, diff string) error {
	return &Mismatch{Seed: e.cfg.Seed, Operation: e.operation, Request: shorten(request, 4000), Diff: shorten(diff, 8000)}
}

func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s ... (%d bytes left out) ... %s", s[:most/2], len(s)-most, s[len(s)-most/2:])
}
