package relay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// serving routes "/here" to a handler and everything else upstream.
func serving(handler http.HandlerFunc) *testSession {
	return &testSession{route: func(path string) Route {
		switch {
		case strings.HasPrefix(path, "/here/long"):
			return Route{Serve: handler, Long: true}
		case strings.HasPrefix(path, "/here"):
			return Route{Serve: handler}
		}
		return Route{}
	}}
}

// undated takes the date out of what a peer got.
func undated(events []string) []string {
	for i, e := range events {
		if before, after, ok := strings.Cut(e, " date="); ok {
			events[i] = before + after[len(http.TimeFormat):]
		}
	}
	return events
}

func wantEvents(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(undated(got)) != fmt.Sprint(want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

// get sends a request without a body.
func (p *peer) get(id uint32, path string, kv ...string) {
	p.headers(id, true, append([]string{":method", "GET", ":scheme", "http", ":path", path, ":authority", "a"}, kv...)...)
}

// post begins a request with one.
func (p *peer) post(id uint32, path string, kv ...string) {
	p.headers(id, false, append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "a"}, kv...)...)
}

// TestServeRequest looks at what a handler is given.
func TestServeRequest(t *testing.T) {
	got := make(chan string, 1)
	pipes(t, Config{}, serving(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		got <- fmt.Sprint(r.Method, r.Host, r.URL, r.Proto, r.Header, r.ContentLength, r.RemoteAddr, string(body), err)
	}), func(r *rig) {
		for _, c := range []struct {
			send func()
			want string
		}{
			{
				func() { r.client.get(1, "/here?x=%41", "cookie", "a=b", "cookie", "c=d", "x-y", "1", "x-y", "2") },
				"GET a /here?x=%41 HTTP/2.0 map[Cookie:[a=b; c=d] X-Y:[1 2]] 0 mem <nil>",
			},
			{
				func() {
					r.client.post(3, "/here", "content-length", "6")
					r.client.data(3, false, []byte("abc"))
					r.client.data(3, true, []byte("def"))
				},
				"POST a /here HTTP/2.0 map[Content-Length:[6]] 6 mem abcdef <nil>",
			},
			{
				func() {
					r.client.post(5, "/here")
					r.client.data(5, false, []byte("abc"))
					r.client.headers(5, true, "a-trailer", "x")
				},
				"POST a /here HTTP/2.0 map[] -1 mem abc <nil>",
			},
			{
				func() {
					r.client.headers(7, true, ":method", "GET", ":scheme", "http", ":path", "http://b/here/x", "host", "c")
				},
				"",
			},
		} {
			c.send()
			synctest.Wait()
			if c.want == "" {
				continue
			}
			if request := <-got; strings.ReplaceAll(request, " ", "") != strings.ReplaceAll(c.want, " ", "") {
				t.Errorf("got  %s\nwant %s", request, c.want)
			}
		}
		r.client.got()
		r.up.want("only what is not served", "HEADERS 9 :method=GET :scheme=http :path=http://b/here/x host=c end")
	})
}

// TestServeResponse looks at what a client is sent.
func TestServeResponse(t *testing.T) {
	for name, test := range map[string]struct {
		method  string
		handler http.HandlerFunc
		want    []string
	}{
		"nothing": {"GET", func(http.ResponseWriter, *http.Request) {}, []string{"HEADERS 1 :status=200 content-length=0 end"}},
		"a text": {"GET", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "text") }, []string{
			"HEADERS 1 :status=200 content-length=4 content-type=text/plain; charset=utf-8", `DATA 1 "text" end`,
		}},
		"an error": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(103)
			w.Header().Set("Content-Type", "x/y")
			w.WriteHeader(404)
			w.Header().Set("Too-Late", "1")
			w.WriteHeader(500)
		}, []string{"HEADERS 1 :status=404 content-length=0 content-type=x/y end"}},
		"no content": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("a body of 204: %v", err)
			}
		}, []string{"HEADERS 1 :status=204 end"}},
		"HEAD": {"HEAD", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "text") }, []string{
			"HEADERS 1 :status=200 content-length=4 end",
		}},
		"pieces": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "x/y")
			for _, piece := range []string{"one", "two"} {
				io.WriteString(w, piece)
				w.(http.Flusher).Flush()
			}
		}, []string{"HEADERS 1 :status=200 content-type=x/y", `DATA 1 "one"`, `DATA 1 "two"`, `DATA 1 "" end`}},
		"trailers": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "x/y")
			w.Header().Set("Trailer", "Late")
			io.WriteString(w, "one")
			w.Header().Set("Late", "1")
			w.Header().Set(http.TrailerPrefix+"Later", "2")
		}, []string{"HEADERS 1 :status=200 content-type=x/y trailer=Late", `DATA 1 "one"`, "HEADERS 1 late=1 later=2 end"}},
		"fields of HTTP/1 and bad ones": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Header()["Bad Name"] = []string{"x"}
			w.Header()["Bad-Value"] = []string{"x\ny"}
			w.WriteHeader(200)
		}, []string{"HEADERS 1 :status=200 content-length=0 end"}},
		"a panic": {"GET", func(http.ResponseWriter, *http.Request) { panic("x") }, []string{"RST_STREAM 1 INTERNAL_ERROR"}},
		"an abort in the middle": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "x/y")
			io.WriteString(w, "one")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, []string{"HEADERS 1 :status=200 content-type=x/y", `DATA 1 "one"`, "RST_STREAM 1 INTERNAL_ERROR"}},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, serving(test.handler), func(r *rig) {
				r.client.headers(1, true, ":method", test.method, ":scheme", "http", ":path", "/here", ":authority", "a")
				got := undated(r.client.got())
				// The fields have no order among themselves.
				for i, e := range got {
					if strings.HasPrefix(e, "HEADERS") {
						got[i] = sortedFields(e)
					}
				}
				wantEvents(t, name, got, test.want...)
				r.up.want("nothing goes up")
				if n := r.streams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// sortedFields sorts the fields of a header block as a peer shows it.
func sortedFields(e string) string {
	parts := strings.Split(strings.ReplaceAll(e, "; ", ";_"), " ")
	fields := parts[2:]
	end := fields[len(fields)-1] == "end"
	if end {
		fields = fields[:len(fields)-1]
	}
	for i := range fields { // insertion sort: they are few
		for j := i; j > 0 && fields[j] < fields[j-1]; j-- {
			fields[j], fields[j-1] = fields[j-1], fields[j]
		}
	}
	return strings.ReplaceAll(strings.Join(parts, " "), ";_", "; ")
}

// TestServeMalformed refuses requests that no handler may see.
func TestServeMalformed(t *testing.T) {
	pipes(t, Config{}, serving(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	}), func(r *rig) {
		r.client.post(1, "/here", "content-length", "2")
		r.client.data(1, false, []byte("abc"))
		r.client.want("too much", "RST_STREAM 1 PROTOCOL_ERROR")
		r.client.post(3, "/here", "content-length", "4")
		r.client.data(3, true, []byte("abc"))
		r.client.want("too little", "RST_STREAM 3 PROTOCOL_ERROR")
		r.client.get(5, "/here", "content-length", "1")
		r.client.want("nothing", "RST_STREAM 5 PROTOCOL_ERROR")
		for i, length := range []string{"x", "-1", "+1", "99999999999999999999"} {
			id := uint32(7 + 2*i)
			r.client.get(id, "/here", "content-length", length)
			r.client.want("content-length "+length, fmt.Sprintf("RST_STREAM %d PROTOCOL_ERROR", id))
		}
		r.client.get(21, "/here%zz")
		if got := r.client.got(); len(got) == 0 || !strings.HasPrefix(got[0], "HEADERS 21 :status=400") {
			t.Errorf("a bad path: %q", got)
		}
		r.client.post(23, "/here", "expect", "100-continue")
		r.client.want("100", "HEADERS 23 :status=100")
		r.client.data(23, true, nil)
		wantEvents(t, "expected", r.client.got(), "HEADERS 23 :status=200 content-length=0 end")
	})
}

// TestServeEarlyAnswer answers before the request has ended.
func TestServeEarlyAnswer(t *testing.T) {
	pipes(t, Config{}, serving(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(413)
	}), func(r *rig) {
		r.client.post(1, "/here")
		r.client.want("nothing before the request's end")
		r.client.data(1, true, []byte("late"))
		wantEvents(t, "early", r.client.got(), "HEADERS 1 :status=413 content-length=0 end")
		r.client.post(3, "/here")
		r.client.headers(3, false, "a", "b")
		r.client.want("a request that goes wrong before its answer", "RST_STREAM 3 PROTOCOL_ERROR")
	})
}

// TestServeWindowIn lets a handler that does not read hold up nothing but its own
// stream, and gives window back as it reads.
func TestServeWindowIn(t *testing.T) {
	var read chan int // made in the bubble, as all channels here
	pipes(t, Config{}, serving(func(w http.ResponseWriter, r *http.Request) {
		for n := range read {
			if _, err := io.CopyN(io.Discard, r.Body, int64(n)); err != nil {
				t.Errorf("reading: %v", err)
			}
		}
	}), func(r *rig) {
		read = make(chan int)
		r.client.post(1, "/here")
		r.client.data(1, false, make([]byte, clientWindow))
		synctest.Wait()
		if _, window := bytesOf(r.client.all(), 1); window != 0 {
			t.Errorf("%d bytes of window came back unread", window)
		}
		r.client.call(3, "/p")
		r.client.data(3, true, framed([]byte("x")))
		if got := r.up.got(); len(got) != 2 {
			t.Errorf("another stream's request: %q", got)
		}
		read <- clientWindow / 2
		synctest.Wait()
		if _, window := bytesOf(r.client.all(), 1); window != clientWindow/2 {
			t.Errorf("%d bytes of window came back, want %d", window, clientWindow/2)
		}
		r.client.data(1, true, make([]byte, clientWindow/2))
		read <- clientWindow
		close(read)
		wantEvents(t, "the answer", r.client.got(), "HEADERS 1 :status=200 content-length=0 end")
		r.client.check(r.client.fr.WriteRSTStream(3, http2.ErrCodeCancel))
	})
	pipes(t, Config{}, serving(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), func(r *rig) {
		r.client.post(1, "/here")
		r.client.data(1, false, make([]byte, clientWindow))
		r.client.data(1, false, []byte("x"))
		r.client.want("more than the window", "RST_STREAM 1 FLOW_CONTROL_ERROR")
	})
}

// TestServeWindowOut has a handler wait for its client's window while others go on.
func TestServeWindowOut(t *testing.T) {
	const size = 1 << 20
	var wrote int
	var ended chan error
	pipes(t, Config{}, serving(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "x/y")
		for wrote < size {
			n, err := w.Write(make([]byte, 10000))
			wrote += n
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}), func(r *rig) {
		ended = make(chan error, 1)
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
		r.client.get(1, "/here")
		synctest.Wait()
		data, _ := bytesOf(r.client.all(), 1)
		if len(data) != 100 || wrote > serverWindow+2*maxFramePayload {
			t.Errorf("the client got %d bytes, the handler wrote %d", len(data), wrote)
		}
		r.client.call(3, "/p")
		r.client.data(3, true, framed([]byte("x")))
		r.up.answer(5, []byte("y"))
		if got := r.client.got(); len(got) != 3 {
			t.Errorf("another stream: %q", got)
		}
		r.client.check(r.client.fr.WriteWindowUpdate(1, 2*size))
		synctest.Wait()
		if err := <-ended; err != nil {
			t.Errorf("writing: %v", err)
		}
		rest, _ := bytesOf(r.client.all(), 1)
		if len(data)+len(rest) != wrote {
			t.Errorf("the client got %d bytes of %d", len(data)+len(rest), wrote)
		}
	})
}

// TestServeEnds ends handlers that wait, whatever they wait for.
func TestServeEnds(t *testing.T) {
	for name, wait := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"for its context": func(_ http.ResponseWriter, r *http.Request) error { <-r.Context().Done(); return r.Context().Err() },
		"for data":        func(_ http.ResponseWriter, r *http.Request) error { _, err := r.Body.Read(make([]byte, 1)); return err },
		"for room": func(w http.ResponseWriter, _ *http.Request) (err error) {
			for err == nil {
				_, err = w.Write(make([]byte, 1<<16))
			}
			return err
		},
	} {
		for how, end := range map[string]func(*rig){
			"by a reset":             func(r *rig) { r.client.check(r.client.fr.WriteRSTStream(1, http2.ErrCodeCancel)) },
			"by the client's end":    func(r *rig) { r.client.conn.Close() },
			"by a protocol error":    func(r *rig) { r.client.check(r.client.fr.WriteRawFrame(http2.FramePing, 0, 0, nil)) },
			"by a window of nothing": func(r *rig) { r.client.check(r.client.fr.WriteWindowUpdate(1, 0)) },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				var got error
				s := serving(func(w http.ResponseWriter, r *http.Request) { got = wait(w, r) })
				pipes(t, Config{}, s, func(r *rig) {
					r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
					r.client.post(1, "/here")
					synctest.Wait()
					if got != nil {
						t.Fatalf("it did not wait: %v", got)
					}
					end(r)
					pass(2 * lingerTime)
					synctest.Wait()
					if got == nil {
						t.Error("the handler has not ended")
					}
					if n := r.streams(); n != 0 && how == "by a reset" {
						t.Errorf("%d streams are left", n)
					}
				})
			})
		}
	}
}

// TestServeGoAway counts what is served here among what GOAWAY says was taken.
func TestServeGoAway(t *testing.T) {
	for name, test := range map[string]struct {
		path string
		ends bool // Run, while the handler still works
	}{
		"a call": {"/here", false}, "a long one": {"/here/long", true},
	} {
		t.Run(name, func(t *testing.T) {
			var release chan struct{}
			s := serving(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-release:
				case <-r.Context().Done():
				}
			})
			pipes(t, Config{}, s, func(r *rig) {
				release = make(chan struct{})
				r.client.get(1, test.path)
				r.client.want("nothing yet")
				go r.pair.Shutdown()
				r.client.want("the first GOAWAY", "GOAWAY 2147483647 NO_ERROR", `PING "etcdseal"`)
				r.client.check(r.client.fr.WritePing(true, drainPing))
				r.client.want("the second", "GOAWAY 1 NO_ERROR")
				pass(2 * lingerTime)
				select {
				case <-r.ran:
					if !test.ends {
						t.Error("the pair ended before the answer")
					}
					return
				default:
				}
				if test.ends {
					t.Error("the pair waits")
				}
				close(release)
				wantEvents(t, "the answer", r.client.got(), "HEADERS 1 :status=200 content-length=0 end")
				pass(2 * lingerTime)
				<-r.ran
				if r.err != nil {
					t.Errorf("Run: %v", r.err)
				}
			})
		})
	}
}

// TestServeOutlivesTheUpstream lets a handler finish whose client's upstream is going
// or gone.
func TestServeOutlivesTheUpstream(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"going": func(r *rig) { r.up.check(r.up.fr.WriteGoAway(1, http2.ErrCodeNo, nil)) },
		"gone":  func(r *rig) { r.up.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var release chan struct{}
			pipes(t, Config{}, serving(func(http.ResponseWriter, *http.Request) { <-release }), func(r *rig) {
				release = make(chan struct{})
				r.client.get(1, "/here")
				end(r)
				r.client.want("it was taken", "GOAWAY 1 NO_ERROR")
				r.client.get(3, "/here")
				r.client.want("no more are")
				close(release)
				wantEvents(t, "the answer", r.client.got(), "HEADERS 1 :status=200 content-length=0 end")
				pass(2 * lingerTime)
				<-r.ran
			})
		})
	}
}

// TestServeBounds refuses more handlers than one client may have, those that outlive
// their streams included, and more unread bytes than a leg may hold.
func TestServeBounds(t *testing.T) {
	var release chan struct{}
	pipes(t, Config{}, serving(func(http.ResponseWriter, *http.Request) { <-release }), func(r *rig) {
		release = make(chan struct{})
		for i := range uint32(maxServing) {
			r.client.get(2*i+1, "/here")
			r.client.check(r.client.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
		r.client.got()
		r.client.get(2*maxServing+1, "/here")
		if got := r.client.got(); len(got) != 2 || !strings.Contains(got[0], ":status=503") {
			t.Errorf("one more: %q", got)
		}
		close(release)
		synctest.Wait()
		r.client.get(2*maxServing+3, "/here")
		if got := r.client.got(); len(got) != 1 || !strings.Contains(got[0], ":status=200") {
			t.Errorf("after that: %q", got)
		}
	})
	pipes(t, Config{}, serving(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), func(r *rig) {
		r.client.post(1, "/here")
		synctest.Wait()
		p := r.pair
		p.mu.Lock()
		p.legs[Request].loose += maxLoose
		p.mu.Unlock()
		r.client.data(1, false, []byte("x"))
		r.client.want("too much", "RST_STREAM 1 ENHANCE_YOUR_CALM")
		p.mu.Lock()
		p.legs[Request].loose -= maxLoose
		p.mu.Unlock()
	})
}

// TestServeObserved tells the observer of served streams as of others.
func TestServeObserved(t *testing.T) {
	o := &observer{}
	s := &testSession{route: func(string) Route {
		return Route{Serve: http.NotFoundHandler(), Method: "http"}
	}}
	pipes(t, Config{Observer: o}, s, func(r *rig) {
		r.client.get(1, "/x")
		r.client.got()
		if fmt.Sprint(o.log) != "[+http -http:-1]" {
			t.Errorf("got %v", o.log)
		}
	})
}
