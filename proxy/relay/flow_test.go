package relay

import (
	"bytes"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// sender keeps to the windows that a peer of the rig was given.
type sender struct {
	p            *peer
	conn, stream int
}

// send sends as much of n bytes, which are gRPC messages without content, as
// the windows allow, in frames with pad bytes of padding, and returns how many.
func (s *sender) send(r *rig, id uint32, n, pad int) (sent int) {
	for sent < n {
		for _, e := range s.p.all() {
			switch {
			case e.typ != http2.FrameWindowUpdate:
			case e.id == 0:
				s.conn += int(e.n)
			case e.id == id:
				s.stream += int(e.n)
			}
		}
		k := min(n-sent, 1000, s.conn-pad-1, s.stream-pad-1)
		if k <= 0 {
			return sent
		}
		if pad > 0 {
			s.p.check(s.p.fr.WriteDataPadded(id, false, make([]byte, k), make([]byte, pad)))
			k2 := k + pad + 1
			s.conn, s.stream = s.conn-k2, s.stream-k2
		} else {
			s.p.check(s.p.fr.WriteData(id, false, make([]byte, k)))
			s.conn, s.stream = s.conn-k, s.stream-k
		}
		sent += k
	}
	return sent
}

// TestConnectionWindowComesBackForDeadStreams sends far more than the window in
// all on streams that are reset, refused, answered or closed, with padding;
// then a live one works.
func TestConnectionWindowComesBackForDeadStreams(t *testing.T) {
	for name, test := range map[string]struct {
		route func(string) Route
		kill  func(*rig, uint32)
	}{
		"reset by the client":   {nil, func(r *rig, id uint32) { r.client.check(r.client.fr.WriteRSTStream(id, 8)) }},
		"reset by the upstream": {nil, func(r *rig, id uint32) { r.up.check(r.up.fr.WriteRSTStream(id+2, 8)) }},
		"reset with a codec":    {rewritten, func(r *rig, id uint32) { r.up.check(r.up.fr.WriteRSTStream(id+2, 8)) }},
		"refused":               {refuseAll, func(r *rig, id uint32) { r.client.data(id, false, framed(nil)) }},
		"refused at once":       {func(string) Route { return Route{HTTPStatus: 404} }, func(*rig, uint32) {}},
		"goaway": {nil, func(r *rig, id uint32) {
			if id == 1 {
				r.up.check(r.up.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: test.route}, func(r *rig) {
				keep := uint32(1)
				if name == "goaway" {
					r.client.call(keep, "/p") // or the pair would end
				}
				r.client.inStep, r.up.inStep = false, false
				s := &sender{p: r.client, conn: connWindow}
				for id := uint32(1); id < 100; id += 2 {
					r.client.call(id+2, "/p")
					test.kill(r, id)
					synctest.Wait()
					s.stream = clientWindow - 10
					if n := s.send(r, id+2, 40_000, 200); n != 40_000 {
						t.Fatalf("stream %d: %d bytes", id, n)
					}
					synctest.Wait()
				}
			})
		})
	}
}

// TestConnectionWindowOfDeadStreams sends 64 MiB on streams that are dead from
// the start.
func TestConnectionWindowOfDeadStreams(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.client.check(r.client.fr.WriteRSTStream(1, http2.ErrCodeCancel))
		r.client.inStep = false
		s := &sender{p: r.client, conn: connWindow, stream: 1 << 40}
		for range 64 {
			if n := s.send(r, 1, 1<<20, 255); n != 1<<20 {
				t.Fatalf("%d bytes of a MiB", n)
			}
			synctest.Wait()
		}
		r.client.inStep = true
		r.client.call(3, "/p")
		r.client.data(3, true, []byte("alive"))
		got := r.up.got()
		if last := got[len(got)-1]; last != `DATA 5 "alive" end` {
			t.Errorf("got %q", got)
		}
	})
}

// TestSwallowedStreamGoesOnToTake has an answer wait for the client's window: it
// may send on meanwhile, to nowhere.
func TestSwallowedStreamGoesOnToTake(t *testing.T) {
	pipes(t, Config{}, &testSession{route: func(string) Route { return Route{HTTPStatus: 404, HTTPBody: "no"} }}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.call(1, "/p")
		r.client.inStep = false
		s := &sender{p: r.client, conn: connWindow, stream: clientWindow}
		for range 10 {
			if n := s.send(r, 1, clientWindow/2, 0); n != clientWindow/2 {
				t.Fatalf("%d bytes", n)
			}
			synctest.Wait()
		}
		r.client.check(r.client.fr.WriteWindowUpdate(1, 2))
		r.client.want("the answer", `DATA 1 "no" end`, "RST_STREAM 1 NO_ERROR")
	})
}

// TestStreamWindowComesBackAsBytesLeave: none before the upstream has taken
// them, all after.
func TestStreamWindowComesBackAsBytesLeave(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.call(1, "/p")
		r.client.data(1, false, make([]byte, clientWindow))
		if _, window := bytesOf(r.client.all(), 1); window != 0 {
			t.Errorf("window of %d before anything left", window)
		}
		r.up.check(r.up.fr.WriteWindowUpdate(3, 40_000))
		if data, _ := bytesOf(r.up.all(), 3); len(data) != 40_000 {
			t.Errorf("%d bytes left", len(data))
		}
		if _, window := bytesOf(r.client.all(), 1); window < 40_000-clientWindow/4 || window > 40_000 {
			t.Errorf("window of %d", window)
		}
	})
}

// TestPaddingIsPaidBack sends a message in frames of one byte with all the
// padding that there is.
func TestPaddingIsPaidBack(t *testing.T) {
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: route}, func(r *rig) {
				r.client.call(1, "/p")
				r.client.inStep = false
				s := &sender{p: r.client, conn: connWindow, stream: clientWindow}
				for i, b := range framed(make([]byte, 2000)) {
					for _, e := range s.p.all() {
						if e.typ == http2.FrameWindowUpdate && e.id == 1 {
							s.stream += int(e.n)
						}
					}
					if s.stream -= 257; s.stream < 0 {
						t.Fatalf("no window at byte %d", i)
					}
					r.client.check(r.client.fr.WriteDataPadded(1, false, []byte{b}, make([]byte, 255)))
					synctest.Wait()
				}
				if data, _ := bytesOf(r.up.all(), 3); len(data) != 2005 {
					t.Errorf("%d bytes came", len(data))
				}
			})
		})
	}
}

// TestWindowsMayBecomeNegative shrinks a stream's window below what was sent.
func TestWindowsMayBecomeNegative(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		window := func(n uint32) {
			r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n}))
		}
		window(10)
		r.client.call(1, "/p")
		r.up.got()
		r.client.data(1, false, []byte("0123456789abcdef"))
		r.up.want("ten", `DATA 3 "0123456789"`)
		window(4) // -6
		r.up.check(r.up.fr.WriteWindowUpdate(3, 6))
		r.up.want("still none")
		r.up.check(r.up.fr.WriteWindowUpdate(3, 1))
		r.up.want("one", `DATA 3 "a"`)
		window(6)
		r.up.want("two", `DATA 3 "bc"`)
		r.up.check(r.up.fr.WriteSettings(
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7}))
		r.up.want("the last one counts", `DATA 3 "d"`)
		window(maxWindow)
		r.up.want("the rest", `DATA 3 "ef"`)
		window(100)
		r.up.check(r.up.fr.WriteWindowUpdate(3, 1<<30))
		window(maxWindow)
		r.up.want("too large", "GOAWAY 0 FLOW_CONTROL_ERROR")
	})
}

// TestLegsWriteRoundRobin gives the connection's window bit by bit.
func TestLegsWriteRoundRobin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, &testSession{})
		defer r.close()
		r.up.check(r.up.fr.WriteSettings())
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow}))
		for id := uint32(1); id <= 7; id += 2 {
			r.client.call(id, "/p")
		}
		for id := uint32(3); id <= 9; id += 2 {
			r.up.headers(id, false, ":status", "200")
			r.up.data(id, false, make([]byte, 5*maxFramePayload))
		}
		r.client.all() // 1 took what there was
		for range 5 {
			r.client.check(r.client.fr.WriteWindowUpdate(0, maxFramePayload))
		}
		seen := map[uint32]int{}
		for _, e := range r.client.all() {
			if e.typ == http2.FrameData {
				seen[e.id] += len(e.data)
			}
		}
		for id := uint32(1); id <= 7; id += 2 {
			if seen[id] < maxFramePayload || seen[id] > 2*maxFramePayload {
				t.Errorf("stream %d got %d bytes of %v", id, seen[id], seen)
			}
		}
	})
}

// TestSlowReaderOfOneStream has a client not take what one stream brings, while
// the upstream sends all that it may: others go on, and what is stored stays
// bounded.
func TestSlowReaderOfOneStream(t *testing.T) {
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{QueueLimit: 1 << 20}, &testSession{route: route}, func(r *rig) {
				r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100_000}))
				r.client.call(1, "/watch")
				r.up.headers(3, false, ":status", "200")
				r.up.inStep = false
				s := &sender{p: r.up, conn: connWindow, stream: serverWindow}
				sent := s.send(r, 3, 32<<20, 0)
				for {
					synctest.Wait()
					more := s.send(r, 3, 32<<20, 0)
					if more == 0 {
						break
					}
					sent += more
				}
				if sent > 2<<20 {
					t.Errorf("the upstream could send %d bytes", sent)
				}
				r.up.inStep = true
				for id := uint32(3); id < 50; id += 2 {
					r.client.all()
					r.client.call(id, "/get")
					r.client.data(id, true, framed([]byte("q")))
					r.up.answer(id+2, make([]byte, 5000))
					if data, _ := bytesOf(r.client.all(), id); len(data) != 5005 {
						t.Fatalf("stream %d got %d bytes", id, len(data))
					}
				}
				r.client.all()
				for {
					r.client.check(r.client.fr.WriteWindowUpdate(1, 1<<20))
					data, _ := bytesOf(r.client.all(), 1)
					if len(data) == 0 {
						break
					}
				}
				if more := s.send(r, 3, 100_000, 0); more != 100_000 {
					t.Errorf("the stream does not go on: %d bytes", more)
				}
			})
		})
	}
}

// TestFlushThoughAPartFrameIsThere: what begins a frame must not hold back what
// came whole before it.
func TestFlushThoughAPartFrameIsThere(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		var b bytes.Buffer
		fr := http2.NewFramer(&b, nil)
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.client.block(":method", "POST", ":scheme", "http", ":path", "/p", ":authority", "a"), EndHeaders: true})
		whole := b.Len()
		_ = fr.WriteData(1, true, []byte("later"))
		for _, cut := range []int{whole + 1, whole + 9, whole + 12, b.Len()} {
			from := map[int]int{whole + 1: 0, whole + 9: whole + 1, whole + 12: whole + 9, b.Len(): whole + 12}[cut]
			if _, err := r.client.conn.Write(b.Bytes()[from:cut]); err != nil {
				t.Fatal(err)
			}
			switch cut {
			case whole + 1:
				r.up.want("the whole one", "HEADERS 3 "+pHeaders)
			case b.Len():
				r.up.want("then", `DATA 3 "later" end`)
			default:
				r.up.want("nothing new")
			}
		}
	})
}

// TestWindowsAreGivenBackThoughNothingElseMoves drains a large answer by the
// client's WINDOW_UPDATEs alone: the upstream must hear of each.
func TestWindowsAreGivenBackThoughNothingElseMoves(t *testing.T) {
	pipes(t, Config{QueueLimit: 128 << 10}, &testSession{}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		s := &sender{p: r.up, conn: connWindow, stream: serverWindow}
		sent, got := 0, 0
		for range 400 {
			sent += s.send(r, 3, 1<<30, 0)
			r.client.check(r.client.fr.WriteWindowUpdate(1, 50_000))
			data, _ := bytesOf(r.client.all(), 1)
			if got += len(data); len(data) == 0 {
				t.Fatalf("stalled at %d bytes sent, %d got", sent, got)
			}
			if got > 4<<20 {
				return
			}
		}
	})
}

// TestBothWriteBeforeTheyRead has both peers send without reading: neither of
// the relay's readers may be held up by its own leg.
func TestBothWriteBeforeTheyRead(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		gates := []chan struct{}{r.client.hold(), r.up.hold()}
		r.client.inStep, r.up.inStep = false, false
		const pings = 20_000 // more than the connection stores
		done := make(chan struct{}, 2)
		for _, p := range []*peer{r.client, r.up} {
			go func() {
				for i := range pings {
					p.check(p.fr.WritePing(false, [8]byte{byte(i), byte(i >> 8)}))
				}
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		for i, p := range []*peer{r.client, r.up} {
			p.mu.Lock()
			p.gate = nil
			p.mu.Unlock()
			close(gates[i])
		}
		for _, p := range []*peer{r.client, r.up} {
			synctest.Wait()
			n := 0
			for _, e := range p.all() {
				if e.typ == http2.FramePing && e.ack {
					n++
				}
			}
			if n != pings {
				r.pair.mu.Lock()
				t.Errorf("%d answers to %d pings; the pair's error is %v", n, pings, r.pair.err)
				r.pair.mu.Unlock()
			}
		}
	})
}
