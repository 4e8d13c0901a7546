package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// errMoved says that a connection's etcd is not what it was when the keyring
// was checked on it.
var errMoved = errors.New("the etcd behind this connection has changed; a new connection will be checked anew")

// session is one client's connection with its upstream connection. It lets
// values be sealed only after it was seen, on that very upstream connection,
// that the keyring's records are there.
type session struct {
	server   *Server
	metrics  *metrics
	endpoint string // of etcd, where the connection leads
	loop     loop   // if it is the server's with itself
	drain    func()

	checked  atomic.Int32 // the outcome of the check
	checkErr error        // why it failed; read after done is closed
	done     chan struct{}
	cluster  atomic.Uint64 // as the check saw it, 0 while unknown
	revision atomic.Int64  // highest seen in an answer

	innerMu    sync.Mutex // guards innerConns and what is in them
	innerConns [innerKinds]*innerConn
}

// The outcomes of a session's check.
const (
	checkPending int32 = iota
	checkPassed
	checkFailed
)

func newSession(s *Server, endpoint string) *session {
	return &session{server: s, metrics: s.metrics, endpoint: endpoint, done: make(chan struct{})}
}

// Start implements relay.Session: it asks for the records of the DEKs in use.
func (s *session) Start(ctx context.Context, drain func()) (*relay.OwnCall, error) {
	s.drain = drain
	if s.server.reserved == nil { // the keyring is not in this etcd
		s.settleCheck(nil)
		return nil, nil
	}
	md, token, err := s.server.ownMetadata(ctx)
	if err != nil {
		s.settleCheck(fmt.Errorf("authenticating to etcd: %w", err))
		return nil, nil
	}
	records := s.server.keyring.ActiveRecords()
	return &relay.OwnCall{
		Path:     txnPath,
		Metadata: md,
		Message:  checkRequest(s.server.reserved, records),
		Done: func(answer []byte, err error) {
			s.settleCheck(s.check(records, answer, err, token))
		},
	}, nil
}

// settleCheck lets those who wait for the check go on. A failed one forbids sealing
// on this connection and nothing else.
func (s *session) settleCheck(err error) {
	if err == nil {
		s.checked.Store(checkPassed)
	} else {
		s.checkErr = fmt.Errorf("checking the keyring on a new connection to etcd: %w", err)
		s.checked.Store(checkFailed)
	}
	close(s.done)
}

// check judges the answer to the check, and puts back records that etcd lost.
func (s *session) check(records [][]byte, answer []byte, err error, token string) error {
	if err != nil {
		s.server.forgetToken(token)
		return err
	}
	found, err := parseCheck(answer, len(records))
	if err != nil {
		return err
	}
	s.cluster.Store(found.cluster)
	s.raise(found.revision)
	ctx, cancel := context.WithTimeout(s.server.ctx, restoreTimeout)
	defer cancel()
	if s.sameCluster() != nil {
		// The keyring may not have noticed yet that etcd was restored, or its
		// connection may still lead to the old one.
		if err := s.server.keyring.Locate(ctx, s.cluster.Load()); err != nil {
			return err
		}
		if err := s.sameCluster(); err != nil {
			return err
		}
	}
	for i, there := range found.present {
		if there {
			continue
		}
		switch err := s.server.keyring.Restore(ctx, records[i]); {
		case errors.Is(err, dek.ErrTombstoned), errors.Is(err, dek.ErrUnknownDEK):
			// It is not sealed with any more.
		case err != nil:
			return err
		}
	}
	return s.sameCluster()
}

// sameCluster compares this connection's cluster with the keyring's.
func (s *session) sameCluster() error {
	here, keyring := s.cluster.Load(), s.server.keyring.ClusterID()
	if here != 0 && keyring != 0 && here != keyring {
		return fmt.Errorf("this connection leads to the etcd cluster %x, the keyring's to %x: either etcd was restored or replaced and one of them still leads to the old one, "+
			"or etcd.endpoints names members of more than one cluster", here, keyring)
	}
	return nil
}

// raise notes a revision.
func (s *session) raise(revision int64) {
	for {
		old := s.revision.Load()
		if revision <= old || s.revision.CompareAndSwap(old, revision) {
			return
		}
	}
}

// heard looks at the header of an answer. floor is the highest revision seen
// before its request was sent: one member's revision never falls, so a lower
// one, or another cluster, means that something between here and etcd has
// moved this connection.
func (s *session) heard(h wire.Header, floor int64) {
	cluster := s.cluster.Load()
	if h.Revision >= floor && (cluster == 0 || h.ClusterID == cluster) {
		s.raise(h.Revision)
		return
	}
	if s.checked.Swap(checkFailed) != checkFailed {
		s.server.logger.Warn("the etcd behind a connection has changed", "revision", h.Revision, "before", floor, "cluster", fmt.Sprintf("%x", h.ClusterID))
		s.drain()
	}
}

// sealingKey returns the key to seal with. With atOnce it does not wait
// but returns errWait.
func (s *session) sealingKey(ctx context.Context, sealer *dek.Sealer) (*envelope.Key, error) {
	if s.checked.Load() != checkPassed {
		if err := s.awaitCheck(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.sameCluster(); err != nil {
		s.giveUp(err)
		return nil, err
	}
	if key, ok := sealer.TryKey(); ok {
		return key, nil
	}
	if ctx == atOnce {
		return nil, errWait
	}
	return sealer.Key(ctx)
}

func (s *session) awaitCheck(ctx context.Context) error {
	if ctx == atOnce {
		select {
		case <-s.done:
		default:
			return errWait
		}
	} else {
		select {
		case <-s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.checked.Load() == checkPassed {
		return nil
	}
	err := s.checkErr
	if err == nil {
		err = errMoved
	}
	s.giveUp(err)
	return err
}

// giveUp has the client connect anew, if it is time for that.
func (s *session) giveUp(err error) {
	if s.server.mayGiveUp() {
		s.server.logger.Warn("giving up a connection on which nothing can be sealed", "error", err.Error())
		s.drain()
	}
}

// openingKey returns the key of a DEK id, likewise.
func (s *session) openingKey(ctx context.Context, id envelope.ID) (*envelope.Key, error) {
	if key, ok := s.server.keyring.TryOpen(id); ok {
		return key, nil
	}
	if ctx == atOnce {
		return nil, errWait
	}
	return s.server.keyring.OpenKey(ctx, id)
}

// Route implements relay.Session.
func (s *session) Route(fields []hpack.HeaderField) relay.Route {
	var method, path, contentType string
	for i := range fields {
		switch f := &fields[i]; f.Name {
		case ":method":
			method = f.Value
		case ":path":
			path = f.Value
		case "content-type":
			contentType = f.Value
		}
	}
	subtype, isGRPC := strings.CutPrefix(contentType, "application/grpc")
	switch {
	case !isGRPC:
		return s.server.web.route(path)
	case method != "POST" || subtype != "" && subtype[0] != '+' && subtype[0] != ';':
		return relay.Route{HTTPStatus: 415, HTTPBody: notGRPC, Method: otherMethod}
	}
	m, known := wire.Lookup(path)
	if !known {
		if s.server.allowed[path] {
			return relay.Route{Method: otherMethod}
		}
		return relay.Route{Refuse: unknownMethod(path), Method: otherMethod}
	}
	r := relay.Route{Method: m.Path, Long: m.ClientStreams || m.Response == wire.LeaderResponse && m.ServerStreams}
	listsMembers := s.server.advertise != nil && memberLists[m.Path] != nil
	if m.Class == wire.Passed && !listsMembers {
		return r
	}
	if subtype != "" && subtype != "+proto" {
		r.Refuse = refusal(codes.Unimplemented, "the content-type %q is not supported", contentType)
		return r
	}
	r.MaxRequest = s.server.maxRequest
	switch {
	case listsMembers:
		r.Codec = &members{session: s, method: m}
	case m.Request == wire.WatchRequest:
		r.Codec = &watch{session: s}
	default:
		r.Codec = s.newCall(m, fields)
	}
	return r
}

// newCall returns the codec of a call. Only some can need other calls.
func (s *session) newCall(m wire.Method, fields []hpack.HeaderField) *call {
	c := &call{session: s, method: m}
	switch {
	case s.loop.raw:
	case s.loop.inner:
		c.rules = s.loop.rules
	default:
		c.rules = s.server.rules.Load()
	}
	switch {
	case m.Request == wire.TxnRequest, m.Request == wire.CampaignRequest, m.Response == wire.RangeResponse:
		c.caller.keep(fields)
	}
	return c
}

const notGRPC = "etcdseal: this is no gRPC request that etcd takes\n"

// unknownMethod answers as etcd does.
func unknownMethod(path string) *relay.Status {
	name, rooted := strings.CutPrefix(path, "/")
	at := strings.LastIndexByte(name, '/')
	if !rooted || at < 0 {
		return &relay.Status{Code: codes.Unimplemented, Message: fmt.Sprintf("malformed method name: %q", path)}
	}
	service, method := name[:at], name[at+1:]
	if services[service] {
		return &relay.Status{Code: codes.Unimplemented, Message: fmt.Sprintf("unknown method %s for service %s", method, service)}
	}
	return &relay.Status{Code: codes.Unimplemented, Message: "unknown service " + service}
}

// services are those that etcd serves.
var services = func() map[string]bool {
	known := map[string]bool{}
	for _, m := range wire.Methods() {
		service, _, _ := strings.Cut(strings.TrimPrefix(m.Path, "/"), "/")
		known[service] = true
	}
	return known
}()

// restoreTimeout bounds the putting back of records that a check found lost.
const restoreTimeout = 20 * time.Second
