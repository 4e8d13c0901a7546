package proxy

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/proxy/assist"
	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// wholeReads is how many calls may be under way at once in a process that read whole
// key ranges to compare or sort them. Each may hold all of their values.
const wholeReads = 32

// needsHelp reports whether etcd cannot carry out an operation over keys under a
// rule, since it would look at envelopes.
func (c *call) needsHelp(op *wire.Op) bool {
	switch {
	case c.method.Request == wire.CampaignRequest:
		return true
	case op.Kind == wire.OpCompare:
		return op.Target == wire.CompareValue
	case op.Kind == wire.OpRange && op.SortTarget == wire.SortByValue:
		_, known := pb.RangeRequest_SortOrder_name[op.SortOrder]
		return known && len(op.End) > 0 && !op.CountOnly && c.method.Response != wire.RangeStreamResponse
	}
	return false
}

// assist answers a request by means of other calls.
func (c *call) assist(ctx context.Context, msg []byte, whole bool) relay.Verdict {
	server := c.session.server
	if whole && !c.session.loop.inner { // else whoever waits for this call has a place already
		select {
		case server.wholeReads <- struct{}{}:
			defer func() { <-server.wholeReads }()
		case <-ctx.Done():
			return refuse(statusOf(ctx.Err()))
		}
	}
	ctx, cancel := c.caller.context(ctx)
	defer cancel()
	conn, release, err := c.session.inner(opened, c.rules)
	if err != nil {
		return refuse(statusOf(err))
	}
	defer release()
	server.metrics.assisted.Inc()
	engine := &assist.Engine{KV: pb.NewKVClient(conn), Sealed: c.rules.touches, Retried: server.metrics.assistRetries.Inc}
	var answer proto.Message
	if c.method.Request == wire.RangeRequest {
		answer, err = answerWith(ctx, engine.Range, msg, &pb.RangeRequest{})
	} else {
		answer, err = answerWith(ctx, engine.Txn, msg, &pb.TxnRequest{})
	}
	if err == errMalformed {
		return relay.Verdict{Msg: unreadable()}
	}
	if err != nil {
		return refuse(statusOf(err))
	}
	b, err := proto.Marshal(answer)
	if err != nil {
		return refuse(refusal(codes.DataLoss, "the answer cannot be written: %v", err))
	}
	return relay.Verdict{Action: relay.Answer, Msg: b}
}

// errMalformed says that a request cannot be read.
var errMalformed = status.Error(codes.Internal, "malformed request")

// answerWith reads a request into in and has it answered.
func answerWith[In, Out proto.Message](ctx context.Context, answer func(context.Context, In) (Out, error), msg []byte, in In) (proto.Message, error) {
	if proto.Unmarshal(msg, in) != nil {
		return nil, errMalformed
	}
	return answer(ctx, in)
}

// statusOf is the status of an inner call's error, which is etcd's, or that of
// this server as it guards and opens what the call touches.
func statusOf(err error) *relay.Status {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	return &relay.Status{Code: st.Code(), Message: st.Message()}
}

// innerKind tells the connections apart that a session has to its own server.
type innerKind int

const (
	opened     innerKind = iota // values are sealed and opened as for a client
	raw                         // values are what etcd stores
	innerKinds = 2
)

// innerConn is a connection of a session to its own server. The session's innerMu guards
// it.
type innerConn struct {
	*grpc.ClientConn
	rules  *Rules // that its calls follow
	users  int    // calls that use it
	retire bool   // it is closed when nobody uses it any more
}

// inner returns the session's connection to its own server, which leads to the same
// member of etcd, and what to call when it is not used any more. Calls on it follow the
// rules of the call that it is for, not those that came into force meanwhile: else a
// call made of several could compare envelopes, or write in plain what it read sealed. It is
// made when it is first needed, and anew for other rules, and closed with the session.
func (s *session) inner(kind innerKind, rules *Rules) (_ *grpc.ClientConn, release func(), err error) {
	s.innerMu.Lock()
	defer s.innerMu.Unlock()
	if kind == raw {
		rules = nil
	}
	conn := s.innerConns[kind]
	if conn == nil || conn.rules != rules {
		made, err := s.server.loopback(loop{endpoint: s.endpoint, raw: kind == raw, inner: true, rules: rules})
		if err != nil {
			return nil, nil, err
		}
		conn.leave()
		conn = &innerConn{ClientConn: made, rules: rules}
		s.innerConns[kind] = conn
	}
	conn.users++
	return conn.ClientConn, func() {
		s.innerMu.Lock()
		defer s.innerMu.Unlock()
		conn.users--
		conn.end()
	}, nil
}

// leave has a connection closed when nobody uses it any more. It may be nil.
func (c *innerConn) leave() {
	if c != nil {
		c.retire = true
		c.end()
	}
}

func (c *innerConn) end() {
	if c.retire && c.users == 0 {
		_ = c.Close() // nothing is under way on it
	}
}

// close ends what belongs to a session whose connection has ended.
func (s *session) close() {
	s.innerMu.Lock()
	defer s.innerMu.Unlock()
	for i, conn := range s.innerConns {
		if conn != nil {
			_ = conn.Close()
			s.innerConns[i] = nil
		}
	}
}
