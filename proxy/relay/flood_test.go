package relay

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// heap returns the bytes in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestFloods has a client send without end while it reads nothing: the pair
// ends or holds it up, and stores no more than its bounds.
func TestFloods(t *testing.T) {
	refuse := func(string) Route { return Route{HTTPStatus: 404, HTTPBody: "no"} }
	for name, test := range map[string]struct {
		route func(string) Route
		send  func(r *rig, i int)
		ends  bool
	}{
		"PING":           {nil, func(r *rig, i int) { r.client.check(r.client.fr.WritePing(false, [8]byte{})) }, true},
		"bandwidth PING": {nil, func(r *rig, i int) { r.client.probe() }, true},
		"SETTINGS":       {nil, func(r *rig, i int) { r.client.check(r.client.fr.WriteSettings()) }, true},
		"rapid reset": {nil, func(r *rig, i int) {
			r.client.call(uint32(2*i+1), "/p")
			r.client.check(r.client.fr.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel))
		}, false},
		"rapid reset of what is answered here": {refuse, func(r *rig, i int) {
			r.client.call(uint32(2*i+1), "/p")
			r.client.check(r.client.fr.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel))
		}, false},
		"requests answered here": {refuse, func(r *rig, i int) { r.client.call(uint32(2*i+1), "/p") }, true},
		"streams":                {nil, func(r *rig, i int) { r.client.call(uint32(2*i+1), "/p") }, true},
		"streams with a codec": {rewritten, func(r *rig, i int) {
			r.client.call(uint32(2*i+1), "/p")
			r.client.data(uint32(2*i+1), false, framed(make([]byte, 40_000))[:10])
		}, true},
		"requests that are not well formed": {nil, func(r *rig, i int) { r.client.headers(uint32(2*i+1), true, "a", "b") }, true},
		"trailers of dead streams": {nil, func(r *rig, i int) {
			if i == 0 {
				r.client.call(9, "/p")
			}
			r.client.headers(1, true, "a", "b")
		}, true},
		"DATA of dead streams": {nil, func(r *rig, i int) {
			if i == 0 {
				r.client.check(r.client.fr.WriteRSTStream(1, http2.ErrCodeCancel))
			}
			r.client.data(1, false, nil)
		}, true},
		"empty DATA":     {rewritten, func(r *rig, i int) { one(r, i); r.client.data(1, false, nil) }, false},
		"PRIORITY":       {nil, func(r *rig, i int) { r.client.check(r.client.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3})) }, false},
		"WINDOW_UPDATE":  {nil, func(r *rig, i int) { one(r, i); r.client.check(r.client.fr.WriteWindowUpdate(1, 1)) }, false},
		"unknown frames": {nil, func(r *rig, i int) { r.client.check(r.client.fr.WriteRawFrame(99, 1, 7, make([]byte, 100))) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{MaxStreams: 1000, Budget: NewBudget(64 << 20)}, &testSession{route: test.route}, func(r *rig) {
				r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
				one(r, 0)
				gate := r.client.hold()
				defer close(gate)
				r.client.check(r.client.fr.WriteSettingsAck())
				r.client.check(r.client.fr.WritePing(false, [8]byte{})) // its reader is at the gate
				r.client.inStep, r.up.inStep = false, false
				before := heap()
				frames := 20_000
				if test.ends {
					frames = 140_000
				}
				for i := range frames {
					test.send(r, i)
					if i%1000 == 0 && r.ended() {
						break
					}
				}
				time.Sleep(2 * lingerTime) // a client that has erred is heard a little longer
				synctest.Wait()
				r.up.all()
				if grown := heap() - before; grown > 24<<20 {
					t.Errorf("the heap grew by %d KiB", grown>>10)
				}
				if r.ended() != test.ends {
					t.Errorf("ended: %v", r.ended())
				}
			})
		})
	}
}

// one opens stream 1, once.
func one(r *rig, i int) {
	if i == 0 && r.pair.Streams() == 0 {
		r.client.call(1, "/p")
	}
}

func (r *rig) ended() bool {
	select {
	case <-r.ran:
		return true
	default:
		return false
	}
}

// TestHeaderFloods are blocks without end.
func TestHeaderFloods(t *testing.T) {
	for name, test := range map[string]struct {
		piece []byte
		most  int
	}{
		"empty CONTINUATION frames": {nil, maxContinuations + 1},
		"full ones":                 {make([]byte, maxFramePayload), maxHeaderList/maxFramePayload + 1},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				r.client.check(r.client.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.client.block("a", "b")}))
				for i := range 10 * test.most {
					r.client.check(r.client.fr.WriteContinuation(1, false, test.piece))
					if r.client.closed() {
						if i > test.most {
							t.Errorf("after %d frames", i)
						}
						break
					}
				}
				r.client.want("end", "GOAWAY 0 ENHANCE_YOUR_CALM")
			})
		})
	}
}

// TestInformationalFlood has the upstream send header blocks that no window
// bounds, while the client reads nothing.
func TestInformationalFlood(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		gate := r.client.hold()
		defer close(gate)
		r.client.check(r.client.fr.WritePing(false, [8]byte{}))
		r.up.inStep = false
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 300_000 {
				r.up.headers(3, false, ":status", "103", "link", "0123456789012345678901234567890123456789")
				if r.up.closed() {
					return
				}
			}
		}()
		synctest.Wait() // it is held up, or done
		r.pair.mu.Lock()
		l := r.pair.legs[Request]
		if l.listed > maxListed+1000 || l.pending() > 2*outSoft {
			t.Errorf("%d bytes of headers queued, %d written", l.listed, l.pending())
		}
		r.pair.mu.Unlock()
		r.client.conn.Close()
		r.up.conn.Close()
		<-done
	})
}

// TestHeadersBehindControlFrames has so many PINGs unanswered at the client's
// leg that header blocks queue, which no window bounds.
func TestHeadersBehindControlFrames(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		gate := r.client.hold()
		defer close(gate)
		r.client.check(r.client.fr.WritePing(false, [8]byte{}))
		r.client.inStep, r.up.inStep = false, false
		for range 20_000 {
			r.client.check(r.client.fr.WritePing(false, [8]byte{}))
		}
		synctest.Wait()
		for i := 0; !r.ended(); i++ {
			r.up.headers(3, false, ":status", "103", "link", "0123456789012345678901234567890123456789")
			if i > 2*maxListed/itemOverhead {
				t.Fatal("the pair goes on storing them")
			}
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
	})
}

// TestDeadStreamsLeaveTheRound resets streams whose answers wait for the
// connection's window.
func TestDeadStreamsLeaveTheRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, &testSession{})
		defer r.close()
		r.up.check(r.up.fr.WriteSettings())
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow}))
		for id := uint32(1); id < 2000; id += 2 {
			r.client.call(id, "/p")
			r.up.headers(id+2, false, ":status", "200")
			r.up.data(id+2, false, make([]byte, 500))
			r.client.check(r.client.fr.WriteRSTStream(id, http2.ErrCodeCancel))
		}
		r.pair.mu.Lock()
		l := r.pair.legs[Request]
		if n := l.starved.len() + l.ready.len(); n > 100 || l.queued != 0 {
			t.Errorf("%d streams are in the round, %d bytes queued", n, l.queued)
		}
		r.pair.mu.Unlock()
		r.client.call(2001, "/p")
		r.up.headers(2003, false, ":status", "200")
		r.up.data(2003, true, []byte("alive"))
		r.client.got()
		r.client.check(r.client.fr.WriteWindowUpdate(0, 10))
		r.client.want("the live one", `DATA 2001 "alive" end`)
	})
}

// TestThousandsOfStreams opens all that are allowed, and more.
func TestThousandsOfStreams(t *testing.T) {
	const n = 5000
	pipes(t, Config{MaxStreams: n}, &testSession{route: rewritten}, func(r *rig) {
		r.client.inStep, r.up.inStep = false, false
		for i := range uint32(n + 100) {
			r.client.call(2*i+1, "/p")
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		refused := 0
		for _, e := range r.client.all() {
			if e.typ == http2.FrameRSTStream && e.code == http2.ErrCodeRefusedStream && e.id > 2*n {
				refused++
			}
		}
		if got := r.pair.Streams(); got != n || refused != 100 {
			t.Errorf("%d streams, %d refused", got, refused)
		}
		r.up.all()
		for i := range uint32(n) {
			r.up.answer(2*i+3, []byte("a"))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		for i := range uint32(n) {
			r.client.data(2*i+1, true, framed([]byte("q")))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		if got := r.streams(); got != 0 {
			t.Errorf("%d streams are left", got)
		}
	})
}

// TestPartialMessagesAreBounded has thousands of streams hold a part of a small
// message each: past the bound they are refused, and the others go on.
func TestPartialMessagesAreBounded(t *testing.T) {
	pipes(t, Config{}, &testSession{route: rewritten}, func(r *rig) {
		r.client.inStep, r.up.inStep = false, false
		const size = 60_000
		most := maxLoose / size
		for i := range uint32(most + 10) {
			r.client.call(2*i+1, "/p")
			r.client.data(2*i+1, false, framed(make([]byte, size))[:10])
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		refused := 0
		for _, e := range r.client.all() {
			if e.typ == http2.FrameHeaders {
				refused++
			}
		}
		if refused != 10 {
			t.Errorf("%d refused", refused)
		}
		r.up.all()
		r.client.data(1, true, framed(make([]byte, size))[10:])
		synctest.Wait()
		if data, _ := bytesOf(r.up.all(), 3); len(data) != size+5 {
			t.Errorf("%d bytes came", len(data))
		}
	})
}
