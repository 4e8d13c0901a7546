package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// event is a frame that a peer got, a header block being one.
type event struct {
	typ      http2.FrameType
	id       uint32
	end, ack bool
	fields   []hpack.HeaderField
	pieces   int // frames of a header block
	data     []byte
	code     http2.ErrCode
	n        uint32 // last stream, window
	settings []http2.Setting
}

// String is short, for tables of want and got.
func (e event) String() string {
	s := fmt.Sprintf("%v %d", e.typ, e.id)
	switch e.typ {
	case http2.FrameHeaders:
		for _, f := range e.fields {
			s += " " + f.Name + "=" + f.Value
		}
	case http2.FrameData:
		s += fmt.Sprintf(" %q", e.data)
		if len(e.data) > 64 {
			s = fmt.Sprintf("%v %d %d bytes", e.typ, e.id, len(e.data))
		}
	case http2.FrameRSTStream:
		s += " " + e.code.String()
	case http2.FrameGoAway:
		s = fmt.Sprintf("GOAWAY %d %v", e.n, e.code)
	case http2.FrameWindowUpdate:
		s += fmt.Sprintf(" %d", e.n)
	case http2.FrameSettings:
		for _, set := range e.settings {
			s += fmt.Sprintf(" %v=%d", set.ID, set.Val)
		}
	case http2.FramePing:
		s = fmt.Sprintf("PING %q", e.data)
	}
	if e.ack {
		s += " ack"
	}
	if e.end {
		s += " end"
	}
	return s
}

// peer is one end of HTTP/2 made of x/net's Framer. It reads all the time,
// unless it is held, and answers nothing by itself.
type peer struct {
	t    testing.TB
	conn net.Conn
	fr   *http2.Framer
	buf  bytes.Buffer
	enc  *hpack.Encoder

	// inStep makes each frame have its effect before the next one is sent.
	inStep bool

	mu     sync.Mutex
	events []event
	err    error // of reading
	gate   chan struct{}
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	p := &peer{t: t, conn: conn, fr: http2.NewFramer(conn, conn)}
	p.fr.AllowIllegalWrites = true
	p.fr.SetMaxReadFrameSize(1 << 20)
	p.enc = hpack.NewEncoder(&p.buf)
	return p
}

// hold stops the reading until the gate that it returns is closed.
func (p *peer) hold() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
	return p.gate
}

func (p *peer) readAll() {
	dec := hpack.NewDecoder(4096, nil)
	var block []byte
	var open event
	for {
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		if gate != nil {
			<-gate
		}
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.mu.Lock()
			p.err = err
			p.mu.Unlock()
			return
		}
		e := event{typ: f.Header().Type, id: f.Header().StreamID}
		endHeaders := false
		switch f := f.(type) {
		case *http2.HeadersFrame:
			e.end, e.pieces = f.StreamEnded(), 1
			open, block, endHeaders = e, append([]byte(nil), f.HeaderBlockFragment()...), f.HeadersEnded()
		case *http2.ContinuationFrame:
			open.pieces++
			block, endHeaders = append(block, f.HeaderBlockFragment()...), f.HeadersEnded()
		case *http2.DataFrame:
			e.end, e.data = f.StreamEnded(), bytes.Clone(f.Data())
		case *http2.RSTStreamFrame:
			e.code = f.ErrCode
		case *http2.GoAwayFrame:
			e.n, e.code, e.data = f.LastStreamID, f.ErrCode, bytes.Clone(f.DebugData())
		case *http2.WindowUpdateFrame:
			e.n = f.Increment
		case *http2.PingFrame:
			e.ack, e.data = f.IsAck(), bytes.Clone(f.Data[:])
		case *http2.SettingsFrame:
			e.ack = f.IsAck()
			_ = f.ForeachSetting(func(s http2.Setting) error { e.settings = append(e.settings, s); return nil })
		}
		if e.typ == http2.FrameHeaders || e.typ == http2.FrameContinuation {
			if !endHeaders {
				continue
			}
			e = open
			if e.fields, err = dec.DecodeFull(block); err != nil {
				p.t.Errorf("the header table is out of step: %v", err)
				return
			}
		}
		p.mu.Lock()
		p.events = append(p.events, e)
		p.mu.Unlock()
	}
}

// all returns the events so far and forgets them.
func (p *peer) all() []event {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.events
	p.events = nil
	return e
}

// got waits until nothing moves any more and returns what has come on streams
// since the last call, without SETTINGS and WINDOW_UPDATE.
func (p *peer) got() []string {
	synctest.Wait()
	list := []string{}
	for _, e := range p.all() {
		if e.typ != http2.FrameSettings && e.typ != http2.FrameWindowUpdate {
			list = append(list, e.String())
		}
	}
	return list
}

// want checks got.
func (p *peer) want(what string, want ...string) {
	p.t.Helper()
	got := p.got()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// bytesOf returns the data of a stream among events, and its window.
func bytesOf(events []event, id uint32) (data []byte, window int) {
	for _, e := range events {
		switch {
		case e.typ == http2.FrameData && e.id == id:
			data = append(data, e.data...)
		case e.typ == http2.FrameWindowUpdate && e.id == id:
			window += int(e.n)
		}
	}
	return data, window
}

func (p *peer) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

func (p *peer) block(kv ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(kv); i += 2 {
		name, sensitive := strings.CutPrefix(kv[i], "!")
		_ = p.enc.WriteField(hpack.HeaderField{Name: name, Value: kv[i+1], Sensitive: sensitive})
	}
	return bytes.Clone(p.buf.Bytes())
}

func (p *peer) headers(id uint32, end bool, kv ...string) {
	p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(kv...), EndStream: end, EndHeaders: true}))
}

func (p *peer) data(id uint32, end bool, b []byte) {
	for len(b) > maxFramePayload {
		p.check(p.fr.WriteData(id, false, b[:maxFramePayload]))
		b = b[maxFramePayload:]
	}
	p.check(p.fr.WriteData(id, end, b))
}

// check lets a write to a connection that the other end has closed pass: what
// comes of it is what tests look at.
func (p *peer) check(err error) {
	p.t.Helper()
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, net.ErrClosed) {
		p.t.Errorf("writing: %v", err)
	}
	if p.inStep {
		synctest.Wait()
	}
}

// call sends the headers of a gRPC call.
func (p *peer) call(id uint32, path string, kv ...string) {
	p.headers(id, false, append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "a"}, kv...)...)
}

// answer sends a whole gRPC answer.
func (p *peer) answer(id uint32, msg []byte) {
	p.headers(id, false, ":status", "200")
	p.data(id, false, framed(msg))
	p.headers(id, true, "grpc-status", "0")
}

// framed puts gRPC's prefix before a message.
func framed(msg []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg)))
	return append(b, msg...)
}

// testSession routes by a function and makes a call of its own.
type testSession struct {
	route func(path string) Route
	own   *OwnCall
	start func(ctx context.Context, drain func()) error
}

func (s *testSession) Start(ctx context.Context, drain func()) (*OwnCall, error) {
	if s.start != nil {
		if err := s.start(ctx, drain); err != nil {
			return s.own, err
		}
	}
	return s.own, nil
}

func (s *testSession) Route(fields []hpack.HeaderField) Route {
	for _, f := range fields {
		if f.Name == ":path" && s.route != nil {
			return s.route(f.Value)
		}
	}
	return Route{}
}

// funcs is a codec of functions; without them it forwards.
type funcs struct {
	rewrite func(d Direction, msg, scratch []byte) Verdict
	wait    func(ctx context.Context, d Direction, msg []byte) Verdict
	lane    func(d Direction, msg []byte) (int64, bool)
}

func (f *funcs) Rewrite(d Direction, msg, scratch []byte) Verdict {
	if f.rewrite == nil {
		return Verdict{Msg: msg}
	}
	return f.rewrite(d, msg, scratch)
}

func (f *funcs) Wait(ctx context.Context, d Direction, msg []byte) Verdict {
	if f.wait == nil {
		return Verdict{Msg: msg}
	}
	return f.wait(ctx, d, msg)
}

func (f *funcs) Lane(d Direction, msg []byte) (int64, bool) {
	if f.lane == nil {
		return 0, true
	}
	return f.lane(d, msg)
}

// rewritten routes every stream through an empty codec.
func rewritten(string) Route { return Route{Codec: &funcs{}} }

// rig is a pair between two peers.
type rig struct {
	t          testing.TB
	client, up *peer
	pair       *Pair
	ran        chan struct{}
	err        error // of Run, once ran is closed
}

// pipes runs a test in a bubble of synctest with a pair between two pipes, up
// to where the client's leg is open.
func pipes(t *testing.T, cfg Config, s *testSession, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cfg, s)
		defer r.close()
		r.hello()
		test(r)
	})
}

// pipesWithoutHello is pipes up to where either peer says its settings.
func pipesWithoutHello(t *testing.T, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, &testSession{})
		defer r.close()
		test(r)
	})
}

// newRig starts a pair; neither peer has said more than the preface.
func newRig(t testing.TB, cfg Config, s *testSession) *rig {
	client, clientEnd := newMemConns(64 << 10)
	up, upEnd := newMemConns(64 << 10)
	r := newRigOn(t, cfg, s, client, clientEnd, up, upEnd)
	r.client.inStep, r.up.inStep = true, true
	return r
}

func newRigOn(t testing.TB, cfg Config, s *testSession, client, clientEnd, up, upEnd net.Conn) *rig {
	r := &rig{t: t, client: newPeer(t, client), up: newPeer(t, up), ran: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(r.ran)
		c, _, err := ReadPreface(clientEnd, 10*time.Second)
		if err != nil {
			t.Errorf("preface: %v", err)
			return
		}
		r.pair = New(cfg, s, c, upEnd)
		close(ready)
		r.err = r.pair.Run(context.Background())
	}()
	if _, err := io.WriteString(client, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	<-ready
	go r.client.readAll()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(up, preface); err != nil || string(preface) != http2.ClientPreface {
		t.Fatalf("upstream's preface %q: %v", preface, err)
	}
	go r.up.readAll()
	return r
}

// hello exchanges settings, with all the window that there is, and forgets what
// was said.
func (r *rig) hello() {
	for _, p := range []*peer{r.up, r.client} {
		p.check(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow}))
		p.check(p.fr.WriteSettingsAck())
		p.check(p.fr.WriteWindowUpdate(0, maxWindow-defaultWindow))
	}
	synctest.Wait()
	r.client.all()
	r.up.all()
}

// close ends the pair and looks for what it may have left behind.
func (r *rig) close() {
	r.t.Helper()
	r.client.conn.Close()
	r.up.conn.Close()
	<-r.ran
	p := r.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.streams) != 0 || p.opened != 0 {
		r.t.Errorf("left behind: %d streams, %d open upstream", len(p.streams), p.opened)
	}
	for d, l := range p.legs {
		if l.queued != 0 || l.listed != 0 || l.loose != 0 || l.assembling != 0 {
			r.t.Errorf("leg %d: queued %d, listed %d, loose %d, assembling %d", d, l.queued, l.listed, l.loose, l.assembling)
		}
	}
	if b := p.cfg.Budget; b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.used != 0 || b.parked != 0 || b.waiting.Len() != 0 {
			r.t.Errorf("budget: used %d, parked %d, waiting %d", b.used, b.parked, b.waiting.Len())
		}
	}
}

// streams returns how many streams the pair has.
func (r *rig) streams() int {
	synctest.Wait()
	return r.pair.Streams()
}

// pass lets the bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }

// observer writes down what it is told.
type observer struct{ log []string }

func (o *observer) StreamStarted(method string) { o.log = append(o.log, "+"+method) }

func (o *observer) StreamEnded(method string, code int, _ time.Duration) {
	o.log = append(o.log, fmt.Sprintf("-%s:%d", method, code))
}
