package relay

import (
	"io"
	"time"

	"golang.org/x/net/http2"
)

// writeTurns is how many writes in a row a goroutine does on behalf of others
// before it hands them over.
const writeTurns = 4

// flush writes what waits for leg d on this goroutine, which may be held up by
// it, and has another one write what waits for the other leg. When somebody is
// writing to a leg already, they go on with it.
//
// Nothing that anybody has put into a leg's out stays there unseen: whoever
// puts something there calls flush afterwards, and flush leaves a leg only
// when it has nothing to write or somebody is writing to it.
func (p *Pair) flush(d Direction) {
	p.mu.Lock()
	p.flushLocked(d)
}

// flushFrom is flush for the goroutine that reads from leg d: it may be held up
// by the other leg, with what was relayed to that, never by its own or by what
// answers the other peer, or two peers that both write before they read would wait
// for each other. It also waits while others write, when more than should be stored
// has been relayed to that leg meanwhile.
func (p *Pair) flushFrom(d Direction) {
	p.mu.Lock()
	other := p.legs[1-d]
	if other.writing && other.relayed >= outSoft {
		p.kick(d)
		for other.writing && other.relayed >= outSoft && !p.closed {
			other.taken.Wait()
		}
	}
	p.flushBy(1-d, true)
}

// flushLocked is flush with mu held; it lets go of it.
func (p *Pair) flushLocked(d Direction) { p.flushBy(d, false) }

// flushBy is flushLocked for a reader, or for somebody else.
func (p *Pair) flushBy(d Direction, reader bool) {
	l := p.legs[d]
	for {
		p.writeLeg(d, reader)
		p.kick(1 - d)                                  // this may have opened a window that l's peer is to be told of
		if l.writing || l.pending() == 0 || p.closed { // once closed nobody takes what a reader leaves
			break
		}
	}
	err := p.over()
	if p.ended {
		err = nil
	}
	if err != nil {
		p.ended = true
	}
	p.mu.Unlock()
	if err != nil {
		p.finishUp(err)
	}
}

// kick has a goroutine of its own write what waits for a leg, if anything does
// and nobody writes to it. mu is held.
func (p *Pair) kick(d Direction) {
	l := p.legs[d]
	if l.writing || l.broken || p.closed {
		return
	}
	p.pump(1 - d)
	if l.pending() == 0 {
		return
	}
	l.writing = true
	p.work.Add(1)
	go l.carryOn()
}

// carryOn is what a goroutine that kick has started does.
func (p *Pair) carryOn(d Direction) {
	defer p.work.Done()
	p.mu.Lock()
	p.legs[d].writing = false
	p.flushLocked(d)
}

// writeLeg writes what waits for a leg until nothing does, unless somebody is
// at it. A reader leaves what was not relayed to somebody else. mu is held, but
// not while writing.
func (p *Pair) writeLeg(d Direction, reader bool) {
	l := p.legs[d]
	for n := 0; !l.writing && !l.broken; n++ {
		p.pump(1 - d)
		if l.pending() == 0 {
			return
		}
		if n == writeTurns || reader && l.relayed == 0 {
			p.kick(d)
			return
		}
		l.answerProbe()
		out := l.out
		l.out, l.relayed, l.writing = nil, 0, true
		l.taken.Broadcast()
		p.mu.Unlock()
		err := out.writeTo(l.conn)
		p.mu.Lock()
		out.release()
		l.writing = false
		if err != nil {
			p.writeFailed(d, err)
		}
		l.taken.Broadcast()
	}
}

// writeFailed gives a leg up for writing. mu is held. A client's end is the
// pair's; what an upstream has still to say is heard first.
func (p *Pair) writeFailed(d Direction, err error) {
	l := p.legs[d]
	l.stopWriting()
	if d == Request {
		p.mu.Unlock()
		p.fail(err)
		p.mu.Lock()
		return
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(drainTime))
}

// stopWriting makes a leg forget what waits for it, now and later.
func (l *leg) stopWriting() {
	l.broken, l.relayed = true, 0
	if l.out != nil {
		l.out.release()
		l.out = nil
	}
}

// over tells whether, and why, the pair is to end now that what could be
// written is. Called with mu held.
func (p *Pair) over() error {
	for _, l := range p.legs {
		if l.flooded {
			return connError{http2.ErrCodeEnhanceYourCalm, "frames that no window bounds, without end"}
		}
	}
	for _, l := range p.legs {
		if l.writing || l.pending() > 0 {
			return nil
		}
	}
	if p.upstreamEnd {
		if p.answersLeft() {
			return nil
		}
		return io.EOF
	}
	if !p.goAwaySent || p.goAwayLast == maxStreamID {
		return nil
	}
	for _, s := range p.streams {
		if !s.long || !p.draining {
			return nil
		}
	}
	return errEnded
}

// answersLeft reports whether answers that came whole, or that need no upstream, are
// still on their way to the client.
func (p *Pair) answersLeft() bool {
	for _, s := range p.streams {
		h := &s.half[Response]
		if (s.served != nil && !s.long || s.orphan) && !s.closed[Request] {
			return true
		}
		if h.endIn && (len(h.queue)+len(h.entries) > 0 || h.state != inputFree) && !s.closed[Request] {
			return true
		}
	}
	return false
}
