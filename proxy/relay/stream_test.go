package relay

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"unsafe"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// refuseAll refuses each request message.
func refuseAll(string) Route {
	return Route{Codec: &funcs{rewrite: func(d Direction, msg, _ []byte) Verdict {
		if d == Request {
			return Verdict{Action: Refuse, Status: &Status{codes.PermissionDenied, "no\n%"}}
		}
		return Verdict{Msg: msg}
	}}}
}

func TestRefusedBeforeItGoesUp(t *testing.T) {
	s := &testSession{route: func(string) Route { return Route{Refuse: &Status{codes.Unimplemented, "what"}} }}
	pipes(t, Config{}, s, func(r *rig) {
		r.client.call(1, "/p")
		r.client.want("open", "HEADERS 1 :status=200 content-type=application/grpc grpc-status=12 grpc-message=what end", "RST_STREAM 1 NO_ERROR")
		r.client.data(1, true, []byte("swallowed"))
		r.client.headers(3, true, ":method", "POST", ":scheme", "http", ":path", "/p")
		r.client.want("half-closed", "HEADERS 3 :status=200 content-type=application/grpc grpc-status=12 grpc-message=what end")
		r.up.want("nothing went up")
		if n := r.streams(); n != 0 {
			t.Errorf("%d streams", n)
		}
	})
}

// TestRefusedAfterItsHeaders also answers late from upstream: all of it is
// swallowed, and nothing follows the CANCEL.
func TestRefusedAfterItsHeaders(t *testing.T) {
	for name, end := range map[string]bool{"open": false, "half-closed": true} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: refuseAll}, func(r *rig) {
				r.client.call(1, "/p")
				r.client.data(1, end, framed([]byte("no")))
				want := []string{"HEADERS 1 :status=200 content-type=application/grpc grpc-status=7 grpc-message=no%0A%25 end"}
				if !end {
					want = append(want, "RST_STREAM 1 NO_ERROR")
				}
				r.client.want("answer", want...)
				r.up.want("cancel", "HEADERS 3 "+pHeaders, "RST_STREAM 3 CANCEL")
				r.up.answer(3, []byte("late"))
				r.up.check(r.up.fr.WriteRSTStream(3, http2.ErrCodeCancel))
				if !end {
					r.client.data(1, true, framed([]byte("more")))
				}
				r.client.want("nothing more")
				r.up.want("nothing more")
				if n := r.streams(); n != 0 {
					t.Errorf("%d streams", n)
				}
			})
		})
	}
}

func TestRefusedAfterAnswersBegan(t *testing.T) {
	pipes(t, Config{}, &testSession{route: refuseAll}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		r.up.data(3, false, framed([]byte("first")))
		r.client.want("begun", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00\x05first"`)
		r.client.data(1, false, framed([]byte("no")))
		r.client.want("trailers", "HEADERS 1 grpc-status=7 grpc-message=no%0A%25 end", "RST_STREAM 1 NO_ERROR")
	})
	pipes(t, Config{}, &testSession{route: refuseAll}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "103")
		r.client.data(1, true, framed([]byte("no")))
		r.client.want("trailers only", "HEADERS 1 :status=103", "HEADERS 1 :status=200 content-type=application/grpc grpc-status=7 grpc-message=no%0A%25 end")
	})
}

// TestAnswered lets a codec answer by itself: upstream hears of a CANCEL only, the
// client gets the message as its windows allow.
func TestAnswered(t *testing.T) {
	large := bytes.Repeat([]byte("x"), defaultWindow)
	s := &testSession{route: func(string) Route {
		return Route{Codec: &funcs{rewrite: func(_ Direction, msg, _ []byte) Verdict {
			if string(msg) == "large" {
				return Verdict{Action: Answer, Msg: bytes.Clone(large)}
			}
			return Verdict{Action: Park}
		}, wait: func(_ context.Context, _ Direction, msg []byte) Verdict {
			return Verdict{Action: Answer, Msg: append([]byte("re: "), msg...)}
		}}}
	}}
	const head = "HEADERS 1 :status=200 content-type=application/grpc"
	pipes(t, Config{}, s, func(r *rig) {
		r.client.call(1, "/p")
		r.client.data(1, true, framed([]byte("q")))
		r.client.want("answer", head, `DATA 1 "\x00\x00\x00\x00\x05re: q"`, "HEADERS 1 grpc-status=0 end")
		r.up.want("cancel", "HEADERS 3 "+pHeaders, "RST_STREAM 3 CANCEL")
		r.up.answer(3, []byte("late"))
		r.client.want("nothing more")
		if n := r.streams(); n != 0 {
			t.Errorf("%d streams", n)
		}
	})
	pipes(t, Config{}, s, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000}))
		r.client.call(1, "/p")
		r.client.data(1, false, framed([]byte("large")))
		synctest.Wait()
		got, _ := bytesOf(r.client.all(), 1)
		if len(got) != 1000 {
			t.Fatalf("%d bytes before the window opens", len(got))
		}
		r.client.check(r.client.fr.WriteWindowUpdate(1, defaultWindow))
		synctest.Wait()
		events := r.client.all()
		rest, _ := bytesOf(events, 1)
		if !bytes.Equal(append(got, rest...), framed(large)) {
			t.Error("another message than was answered")
		}
		if last := events[len(events)-1].String(); last != "RST_STREAM 1 NO_ERROR" {
			t.Errorf("the last frame is %s", last)
		}
	})
}

func TestResponseRefused(t *testing.T) {
	s := &testSession{route: func(string) Route {
		return Route{Codec: &funcs{rewrite: func(d Direction, msg, _ []byte) Verdict {
			if string(msg) == "bad" {
				return Verdict{Action: Refuse, Status: &Status{codes.DataLoss, "x"}}
			}
			return Verdict{Msg: msg}
		}}}
	}}
	pipes(t, Config{}, s, func(r *rig) {
		r.client.call(1, "/p")
		r.client.data(1, true, framed([]byte("q")))
		r.up.headers(3, false, ":status", "200")
		r.up.data(3, false, append(append(framed([]byte("good")), framed([]byte("bad"))...), framed([]byte("never"))...))
		r.up.headers(3, true, "grpc-status", "0")
		r.client.want("answer", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00\x04good"`, "HEADERS 1 grpc-status=15 grpc-message=x end")
		got := r.up.got()
		if last := got[len(got)-1]; last != "RST_STREAM 3 CANCEL" {
			t.Errorf("upstream got %q", got)
		}
	})
}

func TestAnswersThatAreNotGRPC(t *testing.T) {
	s := &testSession{route: func(string) Route { return Route{HTTPStatus: 501, HTTPBody: "no"} }}
	pipes(t, Config{}, s, func(r *rig) {
		r.client.headers(1, true, ":method", "GET", ":scheme", "http", ":path", "/health")
		for id := uint32(3); id <= 9; id += 2 {
			r.client.call(id, "/health")
		}
		want := "HEADERS %d :status=501 content-type=text/plain; charset=utf-8 content-length=2"
		r.client.want("answer", fmt.Sprintf(want, 1), `DATA 1 "no" end`)
		r.client.data(3, false, []byte("body"))
		r.client.want("nothing before the end")
		r.client.data(3, true, nil)
		r.client.want("answer after DATA", fmt.Sprintf(want, 3), `DATA 3 "no" end`)
		r.client.headers(5, true, "a", "b")
		r.client.want("answer after trailers", fmt.Sprintf(want, 5), `DATA 5 "no" end`)
		r.client.check(r.client.fr.WriteRSTStream(7, http2.ErrCodeCancel))
		r.client.want("none after a reset")
		for range maxIgnored / maxFramePayload {
			r.client.data(9, false, make([]byte, maxFramePayload))
		}
		r.client.got()
		r.client.data(9, false, make([]byte, 1))
		r.client.want("answer to a body without end", fmt.Sprintf(want, 9), `DATA 9 "no" end`, "RST_STREAM 9 NO_ERROR")
		r.up.want("nothing went up")
		if n := r.streams(); n != 0 {
			t.Errorf("%d streams", n)
		}
	})
}

// TestResetsOfTheUpstream: NO_ERROR queues behind the output, others discard it.
func TestResetsOfTheUpstream(t *testing.T) {
	begin := func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4}))
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		r.up.data(3, false, framed([]byte("data")))
	}
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeCancel} {
			for _, ended := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " ", code, " ended=", ended), func(t *testing.T) {
					pipes(t, Config{}, &testSession{route: route}, func(r *rig) {
						begin(r)
						if ended {
							r.up.headers(3, true, "grpc-status", "0")
						}
						r.client.want("what fits", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00"`)
						r.up.check(r.up.fr.WriteRSTStream(3, code))
						if code != http2.ErrCodeNo {
							r.client.want("at once", "RST_STREAM 1 "+code.String())
						} else {
							r.client.want("behind")
							r.client.check(r.client.fr.WriteWindowUpdate(1, 100))
							want := []string{`DATA 1 "\x04data"`}
							if ended {
								want = append(want, "HEADERS 1 grpc-status=0 end")
							}
							r.client.want("then", append(want, "RST_STREAM 1 NO_ERROR")...)
						}
						r.up.got()
						r.client.data(1, true, []byte("more"))
						r.up.want("nothing goes up on a stream that is reset")
						if n := r.streams(); n != 0 {
							t.Errorf("%d streams", n)
						}
					})
				})
			}
		}
	}
}

func TestResetsOfTheClientPass(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2}))
		r.client.call(1, "/p")
		r.client.data(1, false, []byte("data"))
		r.client.check(r.client.fr.WriteRSTStream(1, http2.ErrCodeCancel))
		r.up.want("reset", "HEADERS 3 "+pHeaders, `DATA 3 "da"`, "RST_STREAM 3 CANCEL")
		r.up.answer(3, []byte("late"))
		r.client.want("swallowed")
		if n := r.streams(); n != 0 {
			t.Errorf("%d streams", n)
		}
	})
}

// TestStreamsCloseInEveryOrder ends each side of a stream in each order and
// finds no stream left.
func TestStreamsCloseInEveryOrder(t *testing.T) {
	steps := []func(r *rig){
		func(r *rig) { r.client.data(1, true, framed([]byte("q"))) },
		func(r *rig) { r.up.headers(3, false, ":status", "200") },
		func(r *rig) { r.up.data(3, false, framed([]byte("a"))) },
		func(r *rig) { r.up.headers(3, true, "grpc-status", "0") },
	}
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		for at := range len(steps) {
			for _, reset := range []string{"", "client", "upstream"} {
				t.Run(fmt.Sprint(name, at, reset), func(t *testing.T) {
					pipes(t, Config{}, &testSession{route: route}, func(r *rig) {
						r.client.call(1, "/p")
						for i := range steps[1:] { // the client's end comes after i steps of the upstream's
							if i == at {
								steps[0](r)
								synctest.Wait()
							}
							steps[i+1](r)
							synctest.Wait()
						}
						switch reset {
						case "client":
							r.client.check(r.client.fr.WriteRSTStream(1, http2.ErrCodeCancel))
						case "upstream":
							r.up.check(r.up.fr.WriteRSTStream(3, http2.ErrCodeNo))
						default:
							if at == len(steps)-1 {
								steps[0](r)
							}
						}
						if n := r.streams(); n != 0 {
							t.Errorf("%d streams", n)
						}
						events := r.client.all()
						ends := 0
						for _, e := range events {
							if e.end {
								ends++
							}
						}
						if data, _ := bytesOf(events, 1); string(data) != string(framed([]byte("a"))) || ends != 1 {
							t.Errorf("the client got %v", events)
						}
					})
				})
			}
		}
	}
}

// TestObserverHearsOfEachStreamOnce checks codes and counts.
func TestObserverHearsOfEachStreamOnce(t *testing.T) {
	o := &observer{}
	s := &testSession{route: func(path string) Route {
		if path == "/no" {
			return Route{Method: path, Refuse: &Status{codes.Unimplemented, ""}}
		}
		return Route{Method: path}
	}}
	pipes(t, Config{Observer: o}, s, func(r *rig) {
		for i, path := range []string{"/ok", "/no", "/reset", "/cut"} {
			r.client.call(uint32(2*i+1), path)
		}
		r.up.answer(3, nil)
		r.client.data(1, true, nil)
		synctest.Wait()
		r.client.check(r.client.fr.WriteRSTStream(5, http2.ErrCodeCancel))
		synctest.Wait()
	})
	want := "[+/ok +/no -/no:12 +/reset +/cut -/ok:0 -/reset:-1 -/cut:-1]"
	if got := fmt.Sprint(o.log); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestIdleStreamIsSmall holds what an idle watch takes. Go gives memory out in certain
// sizes: with a byte more it would be 768.
func TestIdleStreamIsSmall(t *testing.T) {
	if got, most := unsafe.Sizeof(stream{}), uintptr(704); got > most {
		t.Errorf("a stream takes %d bytes, at most %d are aimed at", got, most)
	}
}
