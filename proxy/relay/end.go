package relay

import (
	"errors"
	"io"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// errEnded ends a pair whose streams have all ended after a GOAWAY.
var errEnded = errors.New("relay: all streams have ended")

const (
	// drainTime bounds how long answers that are complete may take to reach a
	// client whose upstream has gone.
	drainTime = 5 * time.Second
	// lingerTime is how long a client may take to close a connection that has
	// ended.
	lingerTime = time.Second
)

// readEnded winds the pair up after one leg's reader has stopped.
func (p *Pair) readEnded(d Direction, err error) {
	var ce connError
	if errors.As(err, &ce) {
		p.accuse(d, ce)
	}
	if d == Response {
		p.upstreamEnded(err)
		return
	}
	if ce.reason != "" && p.closeWrite() {
		// The client is to read why; a socket that is closed with bytes unread
		// would take that back.
		client := p.legs[Request].conn
		_ = client.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.Copy(io.Discard, client)
	}
	// What the client sent before the end still counts.
	_ = p.legs[Response].conn.SetWriteDeadline(time.Now().Add(time.Second))
	p.flush(Response)
	p.fail(err)
}

// accuse tells a peer by GOAWAY what it did wrong.
func (p *Pair) accuse(d Direction, e connError) {
	p.mu.Lock()
	l := p.legs[d]
	last := uint32(0)
	if d == Request {
		last = p.lastID
		if p.goAwaySent {
			last = min(last, p.goAwayLast)
		}
	}
	l.put(appendGoAway(l.room(), last, e.code, e.reason))
	p.mu.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(lingerTime))
	p.flush(d)
	p.mu.Lock()
	for l.writing && !p.closed {
		l.taken.Wait()
	}
	p.mu.Unlock()
}

// upstreamEnded keeps the client's leg open while answers that are complete
// are on their way, and ends the pair otherwise.
func (p *Pair) upstreamEnded(err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.upstreamEnd, p.endErr = true, err
	p.legs[Response].stopWriting()
	if p.answersLeft() {
		p.goAway(p.lastID, http2.ErrCodeNo)
	}
	p.endTimer = time.AfterFunc(drainTime, func() { p.fail(err) })
	p.mu.Unlock()
	p.flush(Request)
}

// finishUp ends the pair for the reason that over gave.
func (p *Pair) finishUp(err error) {
	var ce connError
	_ = p.legs[Request].conn.SetWriteDeadline(time.Now().Add(lingerTime))
	if errors.As(err, &ce) || !p.closeWrite() {
		p.fail(err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.lingerTimer = time.AfterFunc(lingerTime, func() { p.fail(err) })
	}
}

// closeWrite ends what is sent to the client, so that it gets all of it: a
// socket that is closed with bytes unread would take back what the client has
// not read yet.
func (p *Pair) closeWrite() bool {
	client := p.legs[Request]
	p.mu.Lock()
	for client.writing && !p.closed {
		client.taken.Wait()
	}
	client.stopWriting()
	p.mu.Unlock()
	c, ok := client.conn.(interface{ CloseWrite() error })
	return ok && c.CloseWrite() == nil
}

// fail ends the pair at once: both connections are closed. The first call's
// error is kept.
func (p *Pair) fail(err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	if p.endErr != nil {
		err = p.endErr
	}
	p.closed, p.err = true, err
	for _, l := range p.legs {
		l.taken.Broadcast()
	}
	p.mu.Unlock()
	p.cancel()
	for _, l := range p.legs {
		_ = l.conn.Close()
	}
}

// finish lets go of what streams hold, after all goroutines have ended.
func (p *Pair) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range []*time.Timer{p.drainTimer, p.endTimer, p.lingerTimer, p.keepalive.timers[0], p.keepalive.timers[1]} {
		if t != nil {
			t.Stop()
		}
	}
	for _, l := range p.legs {
		l.probe.stop()
	}
	for _, s := range p.streams {
		p.drop(s)
	}
	p.own.finish(p, nil, &Status{Code: codes.Unavailable, Message: "etcdseal: the upstream's connection has ended"})
}

// result is what Run returns for the error that ended the pair.
func result(err error) error {
	if errors.Is(err, errEnded) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Shutdown asks the client to go elsewhere and lets the pair end when the
// streams that are open have ended. Those marked Long are not waited for.
func (p *Pair) Shutdown() {
	p.mu.Lock()
	if p.draining || p.closed {
		p.mu.Unlock()
		return
	}
	p.draining = true
	if !p.greeted { // the client hears of it when it hears anything
		p.mu.Unlock()
		return
	}
	p.startDrain()
	p.mu.Unlock()
	p.flush(Request)
}

// startDrain is the first step of Shutdown. mu is held.
func (p *Pair) startDrain() {
	p.drainPinged = true
	p.goAway(maxStreamID, http2.ErrCodeNo)
	p.legs[Request].ping(0, drainPing)
	p.drainTimer = time.AfterFunc(drainPingTime, func() {
		p.mu.Lock()
		p.drainAnswered()
		p.flushLocked(Request)
	})
}

// drainAnswered is the second step of Shutdown: no streams above the last one
// are taken. mu is held.
func (p *Pair) drainAnswered() {
	if p.drainPinged && !p.closed {
		p.drainPinged = false
		p.goAway(p.lastID, http2.ErrCodeNo)
	}
}

// Streams returns how many streams are open.
func (p *Pair) Streams() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.streams)
}
