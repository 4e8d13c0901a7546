// Package relay carries HTTP/2 streams between a client's connection and an
// upstream connection of its own, frame by frame, and lets a Session rewrite
// the gRPC messages of the streams that it chooses.
//
// It knows bytes, streams and gRPC's message framing, not etcd. What it
// promises: frames of one stream stay in order; no stream waits for another
// stream's work (a message that has to wait parks its own stream, or its own
// lane of it); memory is bounded whatever either peer does; nothing is sent
// upstream on a stream that was refused; and what a stream's codec has not
// passed never reaches the other side.
//
// A Pair owns two goroutines, one reader a leg, and those that it starts for
// messages that wait and for writing where a reader must not be held up. All
// state of a pair is guarded by one mutex; sockets are written, and messages
// rewritten, outside of it.
package relay

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Direction says which way a message travels.
type Direction uint8

// The two directions of a stream.
const (
	Request  Direction = iota // from the client to the upstream
	Response                  // from the upstream to the client
)

// Session decides over the streams of one pair.
type Session interface {
	// Start is called once, when the upstream's connection is up and before
	// anything of the client's is read. It may return a call to make on that
	// very connection, and may take its time over it within ctx. drain, which
	// is safe to call at any time, does what Pair.Shutdown does.
	Start(ctx context.Context, drain func()) (*OwnCall, error)

	// Route is called for each request, in order, on the goroutine that reads
	// from the client: it must not wait. The fields are valid during the call.
	Route(fields []hpack.HeaderField) Route
}

// Route is what becomes of one request. The zero value forwards it untouched.
type Route struct {
	// Refuse, when set, answers the request here. Nothing goes upstream.
	Refuse *Status
	// HTTPStatus and HTTPBody, when HTTPStatus is not 0, answer a request that
	// is not gRPC. Nothing goes upstream.
	HTTPStatus int
	HTTPBody   string
	// Serve, when set, answers the request here, on a goroutine of its own. Nothing
	// goes upstream. The handler's context ends with the stream, the client's
	// connection, or the pair, which waits for the handler to return.
	Serve http.Handler
	// Codec, when set, sees each message in both directions.
	Codec Codec
	// MaxRequest is the largest request message in bytes that a stream with a
	// Codec may carry; 0 means no limit.
	MaxRequest int
	// Long marks a stream that does not end by itself (a watch): it does not
	// hold up a shutdown.
	Long bool
	// Method labels the stream for the Observer; it comes from a closed set.
	Method string
}

// Codec rewrites the messages of one stream. Each direction's calls come one
// at a time, but the two directions run at the same time.
type Codec interface {
	// Rewrite passes judgement on one message without waiting. It may change
	// msg in place. scratch is memory that the verdict's Msg may use (appended
	// to scratch[:0]); it is nil when there is none to lend.
	Rewrite(d Direction, msg, scratch []byte) Verdict

	// Wait does the same for a message that Rewrite has parked, and may take as
	// long as ctx allows; several lanes may wait at once. It never parks.
	Wait(ctx context.Context, d Direction, msg []byte) Verdict

	// Lane tells which messages must stay in order: those of one lane, and
	// those of a barrier and everything before and after it. It is asked only
	// while something of the stream is parked.
	Lane(d Direction, msg []byte) (lane int64, barrier bool)
}

// Eager is a Codec that can begin with a large response before all of it is there,
// while what has come is in the processor's cache, and so spare it from being
// copied.
type Eager interface {
	Codec
	// Ahead gets the next part of an uncompressed response of size bytes that comes
	// in several. It appends to dst, which holds what it has appended before, what is to stand
	// for the first bytes of the part, and returns how many these were, and how many
	// it has to see from there on: more than are left. A need of 0 says that it
	// takes no more of this message. Rewrite gets, when all has come, what Ahead has
	// appended, and behind it what it has not taken.
	Ahead(size int, dst, part []byte) (out []byte, used, need int)
}

// Action is what is done with a message.
type Action uint8

// The actions. Forward is the zero value.
const (
	Forward Action = iota // send Msg on
	Drop                  // send nothing on
	Park                  // call Wait on another goroutine
	Refuse                // end the stream with Status
	Answer                // of a request: end the stream with Msg as its answer
)

// Verdict is a codec's judgement on a message.
type Verdict struct {
	Action Action
	// Msg is the message to send on: part of the one that came in, of the
	// scratch memory, or memory of its own, which the relay takes over and may
	// use for something else later.
	Msg []byte
	// Reply, when not nil, is a message that is sent back the other way. The
	// relay takes it over too.
	Reply []byte
	// Untouched, on a request, says that the stream's responses need no
	// rewriting and can be forwarded as they come.
	Untouched bool
	// Status ends the stream when Action is Refuse.
	Status *Status
}

// Observer is told of streams as they begin and end. Its methods must not
// wait; they are called with the pair's lock held.
type Observer interface {
	StreamStarted(method string)
	// StreamEnded gets the gRPC code, or -1 for a stream that was reset or cut
	// off before it had one.
	StreamEnded(method string, code int, took time.Duration)
}

// Config holds what is common to the pairs of one server. Its zero value
// works, without limits on memory shared between pairs.
type Config struct {
	// Budget bounds the messages that are being assembled, over all pairs that
	// share it; nil means no bound.
	Budget *Budget
	// QueueLimit is how many bytes of memory may be queued towards one peer
	// before the other peer's connection window is withheld; 0 means 16 MiB.
	QueueLimit int
	// MaxStreams is how many streams a client may have open; 0 means 16384. It
	// is told so, or what the upstream allows if that is less.
	MaxStreams int
	// UpstreamPing is how long the upstream may be silent, while streams are
	// open, before it is pinged; 0 means 30 s. Less than 10 s would make etcd
	// close the connection, so it is raised to that. 10 s without an answer end
	// the pair.
	UpstreamPing time.Duration
	// ClientPing is how long a client may be silent before it is pinged; 0
	// means 2 h. ClientPingTimeout is how long it may take to answer; 0 means
	// 20 s.
	ClientPing, ClientPingTimeout time.Duration
	// SettingsTimeout bounds the wait for the upstream's SETTINGS; 0 means 10 s.
	SettingsTimeout time.Duration
	// Scheme is what :scheme says upstream; empty keeps the client's.
	Scheme string
	// Observer may be nil.
	Observer Observer
}

func (c Config) withDefaults() Config {
	if c.QueueLimit <= 0 {
		c.QueueLimit = 16 << 20
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = 1 << 14
	}
	if c.UpstreamPing <= 0 {
		c.UpstreamPing = 30 * time.Second
	}
	c.UpstreamPing = max(c.UpstreamPing, 10*time.Second)
	if c.ClientPing <= 0 {
		c.ClientPing = 2 * time.Hour
	}
	if c.ClientPingTimeout <= 0 {
		c.ClientPingTimeout = 20 * time.Second
	}
	if c.SettingsTimeout <= 0 {
		c.SettingsTimeout = 10 * time.Second
	}
	return c
}
