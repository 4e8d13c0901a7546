package relay

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// onFrame takes one frame that came in on leg d.
func (p *Pair) onFrame(d Direction, f frame) error {
	l := p.legs[d]
	if !l.greeted && f.typ != http2.FrameSettings {
		return protocolError("the first frame is not SETTINGS")
	}
	l.greeted = true
	if l.inBlock && (f.typ != http2.FrameContinuation || f.id != l.blockFrame.id) {
		return protocolError("a header block that is interrupted")
	}
	switch f.typ {
	case http2.FrameHeaders:
		return p.onHeadersFrame(d, f)
	case http2.FrameContinuation:
		return p.onContinuation(d, f)
	case http2.FramePushPromise:
		return protocolError("PUSH_PROMISE")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch f.typ {
	case http2.FrameData:
		return p.onData(d, f)
	case http2.FrameRSTStream:
		return p.onReset(d, f)
	case http2.FrameSettings:
		return p.onSettings(d, f)
	case http2.FramePing:
		return p.onPing(d, f)
	case http2.FrameGoAway:
		return p.onGoAway(d, f)
	case http2.FrameWindowUpdate:
		return p.onWindowUpdate(d, f)
	case http2.FramePriority:
		return checkPriority(f)
	}
	return nil // RFC 9113, 4.1: unknown types are ignored
}

// lookup finds the stream of a frame that came in on leg d. Without one, a
// stream that never was is a connection error.
func (p *Pair) lookup(d Direction, id uint32) (*stream, error) {
	if id == 0 {
		return nil, protocolError("a frame that needs a stream, on stream 0")
	}
	if d == Response {
		id -= 2
	}
	s := p.recent[d]
	if s == nil || s.id != id {
		s = p.streams[id]
	}
	if s != nil && (d == Request || s.forwarded) {
		p.recent[d] = s
		return s, nil
	}
	if id&1 == 0 || id > p.lastID {
		return nil, protocolError("a frame on a stream that was not opened")
	}
	return nil, nil
}

// onData takes a DATA frame; mu is held, but not while the codec works.
func (p *Pair) onData(d Direction, f frame) error {
	l := p.legs[d]
	n := len(f.payload)
	if err := l.received(n); err != nil {
		return err
	}
	data, err := f.unpad()
	if err != nil {
		return err
	}
	if d == Response && f.id == 1 {
		l.repay(false)
		return p.own.data(p, l, data, n, f.has(http2.FlagDataEndStream))
	}
	s, err := p.lookup(d, f.id)
	l.repay(p.withheld(d))
	if s == nil && err == nil && d == Request {
		p.onStray(f.id, f.has(http2.FlagDataEndStream))
	}
	if s == nil || s.closed[d] {
		return err
	}
	h := &s.half[d]
	h.recvWindow -= int64(n)
	switch {
	case h.endIn:
		p.resetBoth(s, http2.ErrCodeStreamClosed)
	case h.recvWindow < 0:
		p.resetBoth(s, http2.ErrCodeFlowControl)
	case d == Response && !h.begun, d == Request && s.wrongLength(len(data), f.has(http2.FlagDataEndStream)):
		p.resetBoth(s, http2.ErrCodeProtocol)
	default:
		h.credit += int64(n - len(data))
		p.takeData(s, d, data, f.has(http2.FlagDataEndStream))
	}
	return nil
}

// takeData takes the data of a frame that may come. mu is held, but not while
// the codec works.
func (p *Pair) takeData(s *stream, d Direction, data []byte, end bool) {
	h := &s.half[d]
	h.endIn = end
	if s.gone(d) {
		h.credit += int64(len(data))
	}
	p.repayStream(s, d) // padding, and what is not wanted
	switch {
	case s.later != nil:
		p.answerLater(s)
	case s.gone(d):
	case s.served != nil:
		s.served.take(data)
	case h.rewriting && len(data) > 0:
		p.input(s, d, data)
	case h.rewriting:
		p.finishInput(s, d)
	case len(data) > 0 || end:
		p.push(s, d, item{kind: itemData, data: data, end: end, repay: true})
	}
	p.settle(s)
}

func (p *Pair) onReset(d Direction, f frame) error {
	if len(f.payload) != 4 {
		return connError{http2.ErrCodeFrameSize, "RST_STREAM of a wrong size"}
	}
	code := http2.ErrCode(binary.BigEndian.Uint32(f.payload))
	if d == Response && f.id == 1 {
		p.own.reset(p, code)
		return nil
	}
	s, err := p.lookup(d, f.id)
	if s == nil {
		if d == Request {
			p.left.forget(f.id)
		}
		return err
	}
	s.closed[d] = true
	h := &s.half[Response]
	switch {
	case d == Response && code == http2.ErrCodeRefusedStream && !h.begun && !h.swallow:
		p.notTaken(s)
	case d == Request:
		s.half[Request].endIn = true // nothing may follow a reset
		p.resetUpstream(s, code)
		p.drop(s)
	case code == http2.ErrCodeNo && !h.swallow:
		h.cut = !h.endIn
		h.endIn, h.resetIn = true, true
		p.discard(s, Request)
		p.finishInput(s, Response)
		p.settle(s)
	case h.swallow:
		p.settle(s) // the client has, or will get, the proxy's own answer
	default:
		p.resetBoth(s, code)
	}
	return nil
}

func (p *Pair) onWindowUpdate(d Direction, f frame) error {
	if len(f.payload) != 4 {
		return connError{http2.ErrCodeFrameSize, "WINDOW_UPDATE of a wrong size"}
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	l := p.legs[d]
	if f.id == 0 {
		if l.sendWindow += n; n == 0 || l.sendWindow > maxWindow {
			return connError{windowCode(n), "a connection window out of its range"}
		}
		l.feed()
		p.pump(1 - d)
		return nil
	}
	if d == Response && f.id == 1 {
		return nil // the proxy's own request is small
	}
	s, err := p.lookup(d, f.id)
	if s == nil {
		if err == nil && d == Request && n == 0 {
			l.reset(f.id, http2.ErrCodeProtocol)
		}
		return err
	}
	h := &s.half[1-d]
	if h.sendWindow += n; n == 0 || h.sendWindow > maxWindow {
		p.resetBoth(s, windowCode(n))
		return nil
	}
	p.makeReady(s, 1-d)
	p.pump(1 - d)
	return nil
}

func windowCode(n int64) http2.ErrCode {
	if n == 0 {
		return http2.ErrCodeProtocol
	}
	return http2.ErrCodeFlowControl
}

// onSettings takes the peer's settings. Of the upstream's, the client is told
// how many streams and how large a header list it may send.
func (p *Pair) onSettings(d Direction, f frame) error {
	if f.id != 0 {
		return protocolError("SETTINGS on a stream")
	}
	if f.has(http2.FlagSettingsAck) {
		if len(f.payload) != 0 {
			return connError{http2.ErrCodeFrameSize, "a SETTINGS acknowledgement with settings"}
		}
		return nil
	}
	if len(f.payload)%6 != 0 {
		return connError{http2.ErrCodeFrameSize, "SETTINGS of a wrong size"}
	}
	l := p.legs[d]
	var cross []http2.Setting
	var delta int64
	for b := f.payload; len(b) > 0; b = b[6:] {
		set := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(b)), Val: binary.BigEndian.Uint32(b[2:])}
		change, err := l.apply(set)
		if err != nil {
			return err
		}
		delta += change
		switch {
		case d == Response && set.ID == http2.SettingMaxConcurrentStreams:
			set.Val = min(set.Val, uint32(p.cfg.MaxStreams))
			cross = append(cross, set)
		case d == Response && set.ID == http2.SettingMaxHeaderListSize:
			set.Val = min(set.Val, maxHeaderList)
			cross = append(cross, set)
		}
	}
	if err := p.moveWindows(1-d, delta); err != nil {
		return err
	}
	l.control(appendFrameHeader(l.room(), 0, http2.FrameSettings, http2.FlagSettingsAck, 0))
	if cross != nil {
		client := p.legs[Request]
		client.control(appendSettings(client.room(), cross...))
	}
	p.pump(1 - d)
	return nil
}

// moveWindows changes how much may be sent on each stream in direction d.
func (p *Pair) moveWindows(d Direction, delta int64) error {
	if delta == 0 {
		return nil
	}
	for _, s := range p.streams {
		h := &s.half[d]
		if h.sendWindow += delta; h.sendWindow > maxWindow {
			return connError{http2.ErrCodeFlowControl, "settings that overflow a stream's window"}
		}
		if delta > 0 {
			p.makeReady(s, d)
		}
	}
	return nil
}

func (p *Pair) onPing(d Direction, f frame) error {
	if f.id != 0 {
		return protocolError("PING on a stream")
	}
	if len(f.payload) != 8 {
		return connError{http2.ErrCodeFrameSize, "PING of a wrong size"}
	}
	data, answer := [8]byte(f.payload), f.has(http2.FlagPingAck)
	switch {
	case answer && data == drainPing && d == Request:
		p.drainAnswered()
	case answer: // nobody waits for it
	case data == bandwidthPing:
		p.onProbe(d)
	default:
		p.legs[d].ping(http2.FlagPingAck, data)
	}
	return nil
}

func checkPriority(f frame) error {
	switch {
	case f.id == 0:
		return protocolError("PRIORITY on stream 0")
	case len(f.payload) != 5:
		return connError{http2.ErrCodeFrameSize, "PRIORITY of a wrong size"}
	case binary.BigEndian.Uint32(f.payload)&maxStreamID == f.id:
		return protocolError("a stream that depends on itself")
	}
	return nil
}
