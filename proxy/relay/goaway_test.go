package relay

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// TestGoAwayOfTheUpstream opens streams 1, 3, 5 of which "/local" ones are
// answered by the proxy, and looks at what the client is told.
func TestGoAwayOfTheUpstream(t *testing.T) {
	local := Route{Refuse: &Status{codes.Unimplemented, ""}}
	for name, test := range map[string]struct {
		paths []string
		last  uint32 // upstream's
		begun uint32 // an upstream stream with an answer that has begun
		want  []string
	}{
		"all taken":                   {[]string{"/p", "/p", "/p"}, 7, 0, []string{"GOAWAY 5 NO_ERROR"}},
		"more than there are":         {[]string{"/p", "/p", "/p"}, 99, 0, []string{"GOAWAY 97 NO_ERROR"}},
		"some taken":                  {[]string{"/p", "/p", "/p"}, 3, 0, []string{"GOAWAY 1 NO_ERROR", "RST_STREAM 3 REFUSED_STREAM", "RST_STREAM 5 REFUSED_STREAM"}},
		"the proxy's own alone":       {[]string{"/p", "/p"}, 1, 0, []string{"GOAWAY 0 NO_ERROR", "RST_STREAM 1 REFUSED_STREAM", "RST_STREAM 3 REFUSED_STREAM"}},
		"none":                        {[]string{"/p"}, 0, 0, []string{"GOAWAY 0 NO_ERROR", "RST_STREAM 1 REFUSED_STREAM"}},
		"later":                       {[]string{"/p"}, maxStreamID, 0, []string{"GOAWAY 2147483647 NO_ERROR"}},
		"answered here and not there": {[]string{"/p", "/local", "/p"}, 3, 0, []string{"GOAWAY 3 NO_ERROR", "RST_STREAM 5 REFUSED_STREAM"}},
		"answered here above all":     {[]string{"/p", "/p", "/local"}, 3, 0, []string{"GOAWAY 5 NO_ERROR", "RST_STREAM 3 REFUSED_STREAM"}},
		"an answer that has begun":    {[]string{"/p", "/p"}, 3, 5, []string{"GOAWAY 1 NO_ERROR"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &testSession{route: func(path string) Route {
				if path == "/local" {
					return local
				}
				return Route{}
			}}
			pipes(t, Config{}, s, func(r *rig) {
				for i, path := range test.paths {
					r.client.call(uint32(2*i+1), path)
				}
				if test.begun != 0 {
					r.up.headers(test.begun, false, ":status", "200")
				}
				r.client.got()
				r.up.got()
				r.up.check(r.up.fr.WriteGoAway(test.last, http2.ErrCodeNo, nil))
				got := map[string]bool{}
				for _, e := range r.client.got() {
					got[e] = true
				}
				for _, e := range test.want {
					if !got[e] {
						t.Errorf("%s is missing in %v", e, got)
					}
				}
				if len(got) != len(test.want) {
					t.Errorf("got %v, want %v", got, test.want)
				}
				r.up.want("nothing goes up on what it does not take")
			})
		})
	}
}

// TestStreamsAfterGoAway crosses the client's frames with a GOAWAY: they are
// ignored, nothing goes up, and the streams before go on.
func TestStreamsAfterGoAway(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.got()
		r.up.check(r.up.fr.WriteGoAway(3, http2.ErrCodeNo, nil))
		r.client.want("goaway", "GOAWAY 1 NO_ERROR")
		r.client.call(3, "/p", "in", "table")
		r.client.data(3, false, make([]byte, 10))
		r.client.headers(3, true, "trailers", "x")
		r.client.check(r.client.fr.WriteWindowUpdate(3, 9))
		r.client.check(r.client.fr.WriteRSTStream(3, http2.ErrCodeCancel))
		r.up.want("nothing")
		r.client.headers(1, true, "in", "table")
		r.up.want("the table went on", "HEADERS 3 in=table end")
		r.up.answer(3, nil)
		r.client.want("the answer", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00\x00"`, "HEADERS 1 grpc-status=0 end")
		pass(2 * lingerTime)
		<-r.ran
		if r.err != nil {
			t.Errorf("Run: %v", r.err)
		}
	})
}

// TestGoAwayWhileAStreamIsRouted has the upstream's GOAWAY come between a
// request's headers and the decision over it: sent up, it would never be
// answered.
func TestGoAwayWhileAStreamIsRouted(t *testing.T) {
	var r *rig
	s := &testSession{route: func(path string) Route {
		if path == "/late" {
			r.up.inStep = false
			r.up.check(r.up.fr.WriteGoAway(3, http2.ErrCodeNo, nil))
			pass(time.Second)
		}
		return Route{}
	}}
	pipes(t, Config{}, s, func(started *rig) {
		r = started
		r.client.call(1, "/p")
		r.up.got()
		r.client.inStep = false
		r.client.call(3, "/late")
		pass(2 * time.Second)
		r.up.want("nothing")
		r.client.want("goaway", "GOAWAY 1 NO_ERROR")
	})
}

// TestErrorAfterGoAway ends the connection for an error after a stream was
// ignored: the client must not be told that it was taken.
func TestErrorAfterGoAway(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.check(r.up.fr.WriteGoAway(3, http2.ErrCodeNo, nil))
		r.client.call(3, "/p")
		r.client.check(r.client.fr.WriteRawFrame(http2.FramePushPromise, 0, 1, nil))
		r.client.want("goaways", "GOAWAY 1 NO_ERROR", "GOAWAY 1 PROTOCOL_ERROR")
	})
}

// TestNotTakenWhileItWaits has the upstream turn a stream away while its codec may be
// having the request carried out by other means: a client that made the call again
// would write twice.
func TestNotTakenWhileItWaits(t *testing.T) {
	answers := []string{"HEADERS 1 :status=200 content-type=application/grpc", `DATA 1 "\x00\x00\x00\x00\x04done"`, "HEADERS 1 grpc-status=0 end"}
	for name, turn := range map[string]struct {
		away func(*peer)
		tell []string
	}{
		"goaway": {func(up *peer) { up.check(up.fr.WriteGoAway(1, http2.ErrCodeNo, nil)) }, []string{"GOAWAY 1 NO_ERROR"}},
		"reset":  {func(up *peer) { up.check(up.fr.WriteRSTStream(3, http2.ErrCodeRefusedStream)) }, nil},
	} {
		for verdict, test := range map[string]struct {
			verdict Verdict
			want    []string
		}{
			"answered":  {Verdict{Action: Answer, Msg: []byte("done")}, answers},
			"forwarded": {Verdict{Msg: []byte("up")}, []string{"RST_STREAM 1 REFUSED_STREAM"}},
			"refused": {Verdict{Action: Refuse, Status: &Status{codes.Aborted, "no"}},
				[]string{"HEADERS 1 :status=200 content-type=application/grpc grpc-status=10 grpc-message=no end"}},
		} {
			t.Run(name+" and "+verdict, func(t *testing.T) {
				judged := make(chan struct{})
				s := &testSession{route: func(string) Route {
					return Route{Codec: &funcs{
						rewrite: func(Direction, []byte, []byte) Verdict { return Verdict{Action: Park} },
						wait:    func(context.Context, Direction, []byte) Verdict { <-judged; return test.verdict },
					}}
				}}
				pipes(t, Config{}, s, func(r *rig) {
					judged = make(chan struct{})
					r.client.call(1, "/p")
					r.client.data(1, true, framed([]byte("q")))
					r.up.got()
					turn.away(r.up)
					r.client.want("turned away", turn.tell...)
					close(judged)
					r.client.want("judged", test.want...)
					r.up.want("nothing")
					if n := r.streams(); n != 0 {
						t.Errorf("%d streams", n)
					}
				})
			})
		}
	}
}

func TestGoAwayOnlyFalls(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.client.call(3, "/p")
		r.up.check(r.up.fr.WriteGoAway(maxStreamID, http2.ErrCodeNo, nil))
		r.client.call(5, "/p")
		r.up.check(r.up.fr.WriteGoAway(5, http2.ErrCodeNo, nil))
		r.up.check(r.up.fr.WriteGoAway(7, http2.ErrCodeNo, nil))
		r.pair.Shutdown()
		r.client.want("goaways", "GOAWAY 2147483647 NO_ERROR", "RST_STREAM 5 REFUSED_STREAM", "GOAWAY 3 NO_ERROR", "GOAWAY 3 NO_ERROR", "GOAWAY 3 NO_ERROR", `PING "etcdseal"`)
	})
}

// TestProxyAnswerSurvivesGoAway has the proxy's own answer wait for the client
// when the upstream says that it has not seen the stream.
func TestProxyAnswerSurvivesGoAway(t *testing.T) {
	s := &testSession{route: func(string) Route { return Route{HTTPStatus: 501, HTTPBody: "no"} }}
	pipes(t, Config{}, s, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.call(1, "/p")
		r.client.data(1, true, nil)
		r.client.call(3, "/p")
		r.up.check(r.up.fr.WriteGoAway(0, http2.ErrCodeNo, nil))
		r.client.want("headers", "HEADERS 1 :status=501 content-type=text/plain; charset=utf-8 content-length=2", "GOAWAY 3 NO_ERROR")
		r.client.check(r.client.fr.WriteWindowUpdate(1, 10))
		r.client.want("body", `DATA 1 "no" end`)
		r.client.data(3, true, nil)
		r.client.check(r.client.fr.WriteWindowUpdate(3, 10))
		r.client.want("the other", "HEADERS 3 :status=501 content-type=text/plain; charset=utf-8 content-length=2", `DATA 3 "no" end`)
	})
}

func TestShutdownWaitsForCallsButNotForWatches(t *testing.T) {
	s := &testSession{route: func(path string) Route { return Route{Long: path == "/watch"} }}
	for name, answer := range map[string]bool{"ping answered": true, "ping ignored": false} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, s, func(r *rig) {
				r.client.call(1, "/watch")
				r.client.call(3, "/p")
				r.pair.Shutdown()
				r.pair.Shutdown()
				r.client.want("first", "GOAWAY 2147483647 NO_ERROR", `PING "etcdseal"`)
				r.client.call(5, "/p") // it has not seen it yet
				if answer {
					r.client.check(r.client.fr.WritePing(true, drainPing))
				} else {
					pass(drainPingTime)
				}
				r.client.want("second", "GOAWAY 5 NO_ERROR")
				r.client.call(7, "/p")
				r.up.want("all but the last", "HEADERS 3 :method=POST :scheme=http :path=/watch :authority=a", "HEADERS 5 "+pHeaders, "HEADERS 7 "+pHeaders)
				for id := uint32(5); id <= 7; id += 2 {
					r.up.answer(id, nil)
					r.client.data(id-2, true, nil)
				}
				want := []string{}
				for id := 3; id <= 5; id += 2 {
					want = append(want, fmt.Sprintf("HEADERS %d :status=200", id), fmt.Sprintf(`DATA %d "\x00\x00\x00\x00\x00"`, id), fmt.Sprintf("HEADERS %d grpc-status=0 end", id))
				}
				r.client.want("answers", want...)
				if !r.client.closed() {
					t.Error("the client's leg is open")
				}
				// What comes for the watch now has nowhere to go, and does not
				// take the end back.
				r.up.headers(3, false, ":status", "200")
				r.client.conn.Close()
				<-r.ran
				if r.err != nil {
					t.Errorf("Run: %v", r.err)
				}
			})
		})
	}
}

func TestShutdownOfAnIdlePair(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		before := time.Now()
		r.pair.Shutdown()
		r.client.got()
		r.client.check(r.client.fr.WritePing(true, drainPing))
		<-r.ran
		if r.err != nil || time.Since(before) > lingerTime {
			t.Errorf("after %v: %v", time.Since(before), r.err)
		}
	})
}
