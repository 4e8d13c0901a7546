package relay

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

func limited(n int) func(string) Route {
	return func(string) Route { return Route{Codec: &funcs{}, MaxRequest: n} }
}

func TestRequestLimit(t *testing.T) {
	pipes(t, Config{}, &testSession{route: limited(10)}, func(r *rig) {
		r.client.call(1, "/p")
		r.client.data(1, true, framed(make([]byte, 10)))
		r.up.want("at the limit", "HEADERS 3 "+pHeaders, fmt.Sprintf("DATA 3 %q end", framed(make([]byte, 10))))
		r.client.call(3, "/p")
		r.client.data(3, false, framed(make([]byte, 11)))
		r.client.want("past it", "HEADERS 3 :status=200 content-type=application/grpc grpc-status=8 grpc-message=grpc: received message larger than max (11 vs. 10) end", "RST_STREAM 3 NO_ERROR")
		r.client.call(5, "/p")
		r.client.data(5, false, binary.BigEndian.AppendUint32([]byte{0}, 1<<32-1))
		r.client.want("the largest", "HEADERS 5 :status=200 content-type=application/grpc grpc-status=8 grpc-message=grpc: received message larger than max (4294967295 vs. 10) end", "RST_STREAM 5 NO_ERROR")
		r.up.want("cancelled", "HEADERS 5 "+pHeaders, "RST_STREAM 5 CANCEL", "HEADERS 7 "+pHeaders, "RST_STREAM 7 CANCEL")
	})
}

func zipped(msg []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(msg)
	_ = z.Close()
	out := framed(b.Bytes())
	out[0] = 1
	return out
}

func TestCompressedRequests(t *testing.T) {
	flag := func(f byte, b []byte) []byte { b = bytes.Clone(b); b[0] = f; return b }
	whole := zipped([]byte("hello"))
	for name, test := range map[string]struct {
		encoding string
		data     []byte
		status   string // empty: it passes
	}{
		"gzip":             {"gzip", whole, ""},
		"not compressed":   {"gzip", framed([]byte("hello")), ""},
		"a bomb":           {"gzip", zipped(make([]byte, 1<<20)), "8 grpc-message=grpc: received message after decompression larger than max 65536"},
		"not gzip":         {"gzip", flag(1, framed([]byte("hello"))), "13 grpc-message=grpc: failed to decompress the message: unexpected EOF"},
		"cut off":          {"gzip", flag(1, framed(whole[5:20])), "13 grpc-message=grpc: failed to decompress the message: unexpected EOF"},
		"unknown":          {"zstd", whole, `12 grpc-message=grpc: Decompressor is not installed for grpc-encoding "zstd"`},
		"identity":         {"identity", whole, "13 grpc-message=grpc: compressed flag set with identity or empty encoding"},
		"none":             {"", whole, "13 grpc-message=grpc: compressed flag set with identity or empty encoding"},
		"an unknown flag":  {"gzip", flag(2, whole), "13 grpc-message=grpc: received unexpected payload format 2"},
		"identity, no use": {"identity", framed([]byte("hello")), ""},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: limited(1 << 16)}, func(r *rig) {
				if test.encoding == "" {
					r.client.call(1, "/p")
				} else {
					r.client.call(1, "/p", "grpc-encoding", test.encoding)
				}
				r.client.data(1, true, test.data)
				got := strings.Join(r.client.got(), "|")
				up := strings.Join(r.up.got(), "|")
				if test.status == "" {
					if want := "HEADERS 3 " + pHeaders + `|DATA 3 "\x00\x00\x00\x00\x05hello" end`; up != want || got != "" {
						t.Errorf("upstream %s, client %s", up, got)
					}
					return
				}
				if want := "HEADERS 1 :status=200 content-type=application/grpc grpc-status=" + test.status + " end"; strings.TrimSuffix(got, "|RST_STREAM 1 NO_ERROR") != want {
					t.Errorf("got %s, want %s", got, want)
				}
				if strings.Contains(up, "DATA") {
					t.Errorf("upstream got %s", up)
				}
			})
		})
	}
}

func TestCompressedResponses(t *testing.T) {
	pipes(t, Config{}, &testSession{route: rewritten}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200", "grpc-encoding", "gzip")
		r.up.data(3, false, zipped([]byte("hello")))
		r.client.want("plain", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00\x05hello"`)
		// gzip allows any number of members, one after another.
		bomb := framed(bytes.Repeat(zipped(make([]byte, 1<<20))[messagePrefixSize:], maxInflated>>20+1))
		bomb[0] = 1
		r.up.data(3, false, bomb)
		if got := r.client.got(); len(got) != 2 || !strings.HasPrefix(got[0], "HEADERS 1 grpc-status=8") {
			t.Errorf("a bomb: %q", got)
		}
	})
}

func TestMessagesThatAreCutOff(t *testing.T) {
	for name, test := range map[string]struct{ sent, want string }{
		"in the prefix":  {"\x00\x00\x00", `"\x00\x00\x00" end`},
		"in the message": {"\x00\x00\x00\x00\x05secr", `"\x00\x00\x00\x00\x05" end`},
		"after one":      {"\x00\x00\x00\x00\x01x\x00\x00", ``},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: rewritten}, func(r *rig) {
				r.client.call(1, "/p")
				r.up.got()
				r.client.data(1, true, []byte(test.sent))
				got := strings.Join(r.up.got(), "|")
				if test.want == "" {
					test.want = `"\x00\x00\x00\x00\x01x"|DATA 3 "\x00\x00" end`
				}
				if got != "DATA 3 "+test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		})
	}
}

// TestSplitMessagesKeepTheirBytes splits random messages over random DATA
// frames, empty and padded ones too, in both directions.
func TestSplitMessagesKeepTheirBytes(t *testing.T) {
	copying := &funcs{rewrite: func(_ Direction, msg, scratch []byte) Verdict {
		return Verdict{Msg: append(scratch[:0], msg...)}
	}}
	parking := &funcs{rewrite: func(_ Direction, msg, _ []byte) Verdict {
		if len(msg)%3 == 0 {
			return Verdict{Action: Park}
		}
		return Verdict{Msg: msg}
	}}
	for name, codec := range map[string]Codec{"in place": &funcs{}, "copied": copying, "parked": parking, "raw": nil} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				s := &testSession{route: func(string) Route { return Route{Codec: codec} }}
				pipes(t, Config{Budget: NewBudget(1 << 20)}, s, func(r *rig) {
					r.client.inStep, r.up.inStep = false, false
					r.client.call(1, "/p")
					synctest.Wait()
					r.up.headers(3, false, ":status", "200")
					for i, p := range []*peer{r.client, r.up} {
						id, to := []uint32{1, 3}[i], []*peer{r.up, r.client}[i]
						to.all()
						want := p.sendSplit(rnd, id, int(windows[i]))
						synctest.Wait()
						events := to.all()
						got, _ := bytesOf(events, 4-id)
						if !bytes.Equal(got, want) {
							t.Fatalf("%d bytes came of %d", len(got), len(want))
						}
						if last := events[len(events)-1]; !last.end {
							t.Errorf("ends with %v", last)
						}
					}
				})
			})
		}
	}
}

// sendSplit sends messages as the windows allow and returns all of their bytes.
func (p *peer) sendSplit(rnd *rand.Rand, id uint32, stream int) []byte {
	var all []byte
	for range 20 {
		n := rnd.IntN(200)
		if rnd.IntN(5) == 0 {
			n = rnd.IntN(300_000)
		}
		msg := make([]byte, n)
		for i := range msg {
			msg[i] = byte(rnd.Uint32())
		}
		all = append(all, framed(msg)...)
	}
	conn := connWindow
	for b := all; len(b) > 0; {
		n := min(rnd.IntN(maxFramePayload-300), len(b))
		if rnd.IntN(3) == 0 {
			n = min(rnd.IntN(10), len(b))
		}
		for stream < n+256 || conn < n+256 {
			synctest.Wait()
			events := p.all()
			moved := false
			for _, e := range events {
				if e.typ == http2.FrameWindowUpdate && e.id == id {
					stream += int(e.n)
					moved = true
				} else if e.typ == http2.FrameWindowUpdate && e.id == 0 {
					conn += int(e.n)
					moved = true
				}
			}
			if !moved {
				p.t.Fatalf("stream %d: no window for %d bytes: stream %d, connection %d, %d left", id, n, stream, conn, len(b))
			}
		}
		pad := 0
		if rnd.IntN(3) == 0 {
			pad = 1 + rnd.IntN(255)
			p.check(p.fr.WriteDataPadded(id, false, b[:n], make([]byte, pad-1)))
		} else {
			p.check(p.fr.WriteData(id, false, b[:n]))
		}
		stream, conn = stream-n-pad, conn-n-pad
		b = b[n:]
	}
	p.data(id, true, nil)
	return all
}

// TestBudgetAdmitsInOrder has the first message hold all of the budget: the next
// gets no window beyond its stream's until it is done, and one larger than all
// of it is let in alone.
func TestBudgetAdmitsInOrder(t *testing.T) {
	pipes(t, Config{Budget: NewBudget(300_000)}, &testSession{route: rewritten}, func(r *rig) {
		window := func(id uint32, events []event) int {
			_, n := bytesOf(events, id)
			return n
		}
		sizes := []int{250_000, 200_000, 1_000_000, 1000}
		for i, n := range sizes {
			id := uint32(2*i + 1)
			r.client.call(id, "/p")
			msg := framed(make([]byte, n))
			r.client.data(id, n == 1000, msg[:min(len(msg), 50_000)])
			if got := window(id, r.client.all()); (got >= 200_000) != (i == 0) {
				t.Errorf("message %d got a window of %d", i, got)
			}
		}
		for i, n := range sizes[:3] {
			id := uint32(2*i + 1)
			r.client.all()
			r.client.data(id, true, framed(make([]byte, n))[50_000:])
			events := r.client.all()
			if next := uint32(2*i + 3); i < 2 && window(next, events) < sizes[i+1]-clientWindow {
				t.Errorf("after message %d: %v", i, events)
			}
			if data, _ := bytesOf(r.up.all(), id+2); len(data) != n+5 {
				t.Errorf("message %d: %d bytes came", i, len(data))
			}
		}
	})
}

// TestSlowMessageLosesItsPlace has a client announce much and send nothing while
// another one waits.
func TestSlowMessageLosesItsPlace(t *testing.T) {
	pipes(t, Config{Budget: NewBudget(100_000), UpstreamPing: time.Hour}, &testSession{route: rewritten}, func(r *rig) {
		msg := framed(make([]byte, 90_000))
		r.client.call(1, "/p")
		r.client.data(1, false, msg[:10])
		pass(2 * assemblyTime)
		r.client.want("nobody waits")
		r.client.call(3, "/p")
		r.client.data(3, false, msg[:10])
		pass(2 * assemblyTime)
		got := r.client.got()
		if len(got) < 2 || !strings.HasPrefix(got[0], "HEADERS 1 :status=200 content-type=application/grpc grpc-status=14 ") {
			t.Errorf("got %q", got)
		}
		r.client.data(3, true, msg[10:])
		if data, _ := bytesOf(r.up.all(), 5); len(data) != len(msg) {
			t.Errorf("%d bytes came", len(data))
		}
	})
}

// TestBudgetIsGivenBack ends streams while they hold, or wait for, the budget.
func TestBudgetIsGivenBack(t *testing.T) {
	for name, end := range map[string]func(*rig, uint32){
		"client":   func(r *rig, id uint32) { r.client.check(r.client.fr.WriteRSTStream(id, 8)) },
		"upstream": func(r *rig, id uint32) { r.up.check(r.up.fr.WriteRSTStream(id+2, 8)) },
		"answer":   func(r *rig, id uint32) { r.up.headers(id+2, true, ":status", "200", "grpc-status", "1") },
		"cut off":  func(r *rig, id uint32) { r.client.data(id, true, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBudget(100_000)
			pipes(t, Config{Budget: b}, &testSession{route: rewritten}, func(r *rig) {
				for id := uint32(1); id < 20; id += 2 {
					r.client.call(id, "/p")
					r.client.data(id, false, framed(make([]byte, 70_000))[:60_000])
				}
				for id := uint32(19); id < 20; id -= 2 { // those that wait first
					end(r, id)
				}
				if name == "cut off" || name == "answer" {
					for id := uint32(1); id < 20; id += 2 {
						r.client.check(r.client.fr.WriteRSTStream(id, 8))
					}
				}
				synctest.Wait()
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.used != 0 || b.waiting.Len() != 0 {
					t.Errorf("used %d, %d waiting", b.used, b.waiting.Len())
				}
			})
		})
	}
}

// TestHugeResponseGetsItsWindowInParts: a window must stay under 2^31.
func TestHugeResponseGetsItsWindowInParts(t *testing.T) {
	pipes(t, Config{Budget: NewBudget(1 << 20)}, &testSession{route: rewritten}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		r.up.data(3, false, binary.BigEndian.AppendUint32([]byte{0}, maxWindow))
		if _, window := bytesOf(r.up.all(), 3); window < maxAhead || window+serverWindow > maxWindow {
			t.Errorf("window of %d", window)
		}
		// The rest comes with the bytes; a GiB of them is not for a test.
		r.pair.mu.Lock()
		r.pair.streams[1].half[Response].asm.late = 100_000
		r.pair.mu.Unlock()
		for range 20 {
			r.up.data(3, false, make([]byte, 10_000))
		}
		if _, window := bytesOf(r.up.all(), 3); window < 100_000-serverWindow/4 || window > 100_000 {
			t.Errorf("window of %d", window)
		}
		r.client.check(r.client.fr.WriteRSTStream(1, 8))
	})
}

func TestInflateReadsNoMoreThanItMay(t *testing.T) {
	if got, err := inflate(zipped(make([]byte, 1<<20))[messagePrefixSize:], 10); len(got) != 11 || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestUntouchedResponsesAreNotAssembled: they pass before their message is
// whole, unless a part of one is there already.
func TestUntouchedResponsesAreNotAssembled(t *testing.T) {
	s := &testSession{route: func(string) Route {
		return Route{Codec: &funcs{rewrite: func(_ Direction, msg, _ []byte) Verdict {
			return Verdict{Msg: msg, Untouched: true}
		}}}
	}}
	pipes(t, Config{}, s, func(r *rig) {
		r.client.call(1, "/p")
		r.client.data(1, true, framed(nil))
		r.up.headers(3, false, ":status", "200")
		r.up.data(3, false, []byte("\x00\x00\x00\x00\x05he"))
		r.client.want("in part", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00\x05he"`)
		r.client.call(3, "/p")
		r.up.headers(5, false, ":status", "200")
		r.up.data(5, false, []byte("\x00\x00\x00\x00\x05he"))
		r.client.data(3, true, framed(nil))
		r.up.data(5, false, []byte("llo"))
		r.client.want("whole", "HEADERS 3 :status=200", `DATA 3 "\x00\x00\x00\x00\x05hello"`)
	})
}

// TestTinyMessagesCostWhatTheyAre fills a stream's queue with empty messages.
func TestTinyMessagesCostWhatTheyAre(t *testing.T) {
	pipes(t, Config{}, &testSession{route: rewritten}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		s := &sender{p: r.up, conn: connWindow, stream: serverWindow}
		s.send(r, 3, 10<<20, 0)
		r.pair.mu.Lock()
		defer r.pair.mu.Unlock()
		h := &r.pair.streams[1].half[Response]
		bytes := 0
		for i := range h.queue {
			bytes += h.queue[i].size()
		}
		if h.queued > 2*serverWindow || int64(len(h.raw)) > serverWindow || int64(bytes) < h.queued/4 {
			t.Errorf("%d bytes are queued and cost %d, in %d items; %d raw", bytes, h.queued, len(h.queue), len(h.raw))
		}
	})
}
