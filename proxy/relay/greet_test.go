package relay

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

func TestUpstreamStreamsAreTwoHigherAndOwnCallIsFirst(t *testing.T) {
	type result struct {
		answer string
		err    error
	}
	synctest.Test(t, func(t *testing.T) {
		results := make(chan result, 1)
		own := &OwnCall{
			Path: "/own", Message: []byte("hi"), Metadata: []hpack.HeaderField{{Name: "token", Value: "t", Sensitive: true}},
			Done: func(answer []byte, err error) { results <- result{string(answer), err} },
		}
		r := newRig(t, Config{Scheme: "https"}, &testSession{own: own})
		// The client does not wait for the relay's settings.
		r.client.check(r.client.fr.WriteSettings())
		r.client.call(1, "/p")
		r.up.want("before its settings")
		r.client.want("before the upstream's settings")
		r.up.check(r.up.fr.WriteSettings())
		r.up.want("own call first",
			"HEADERS 1 :method=POST :scheme=https :path=/own :authority=etcdseal content-type=application/grpc te=trailers token=t",
			`DATA 1 "\x00\x00\x00\x00\x02hi" end`,
			"HEADERS 3 :method=POST :scheme=https :path=/p :authority=a")
		r.up.answer(3, []byte("three"))
		r.up.answer(1, []byte("one"))
		r.client.want("the answer", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00\x05three"`, "HEADERS 1 grpc-status=0 end")
		if got := <-results; got.answer != "one" || got.err != nil {
			t.Errorf("own call: %q, %v", got.answer, got.err)
		}
		r.close()
	})
}

func TestOwnCallFails(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(*peer)
		code   codes.Code
	}{
		"status":      {func(p *peer) { p.headers(1, true, ":status", "200", "grpc-status", "7", "grpc-message", "no%21") }, codes.PermissionDenied},
		"reset":       {func(p *peer) { p.check(p.fr.WriteRSTStream(1, http2.ErrCodeCancel)) }, codes.Unavailable},
		"no status":   {func(p *peer) { p.headers(1, true, ":status", "503") }, codes.Unavailable},
		"no message":  {func(p *peer) { p.headers(1, true, ":status", "200", "grpc-status", "0") }, codes.Unavailable},
		"end of data": {func(p *peer) { p.headers(1, false, ":status", "200"); p.data(1, true, framed(nil)) }, codes.Unavailable},
		"gone":        {func(p *peer) { p.conn.Close() }, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			var results []error
			own := &OwnCall{Path: "/own", Done: func(_ []byte, err error) { results = append(results, err) }}
			pipes(t, Config{}, &testSession{own: own}, func(r *rig) {
				test.answer(r.up)
			})
			var st *Status
			if len(results) != 1 || !errors.As(results[0], &st) || st.Code != test.code {
				t.Errorf("got %v, want one %v", results, test.code)
			}
		})
	}
}

func TestOwnCallTooLargeForTheUpstreamFailsThePair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result := make(chan error, 1)
		own := &OwnCall{Path: "/own", Message: make([]byte, 100), Done: func(_ []byte, err error) { result <- err }}
		r := newRig(t, Config{}, &testSession{own: own})
		r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}))
		if err := <-result; err == nil {
			t.Error("Done without an error")
		}
		<-r.ran
		if r.err == nil {
			t.Error("Run without an error")
		}
		r.close()
	})
}

func TestSettingsThatCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxStreams: 1000}, &testSession{})
		r.up.check(r.up.fr.WriteSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 7},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000},
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: 100},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1},
			http2.Setting{ID: 99, Val: 1}))
		synctest.Wait()
		settings := func() (list []string) {
			for _, e := range r.client.all() {
				if e.typ == http2.FrameSettings && !e.ack {
					list = append(list, e.String())
				}
			}
			return list
		}
		want := []string{
			"SETTINGS 0 INITIAL_WINDOW_SIZE=65536 MAX_CONCURRENT_STREAMS=1000 MAX_HEADER_LIST_SIZE=1048576",
			"SETTINGS 0 MAX_CONCURRENT_STREAMS=7 MAX_HEADER_LIST_SIZE=5000",
		}
		if got := settings(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("got %q, want %q", got, want)
		}
		r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1 << 31}))
		synctest.Wait()
		if got := settings(); len(got) != 1 || got[0] != "SETTINGS 0 MAX_CONCURRENT_STREAMS=1000" {
			t.Errorf("later settings: %q", got)
		}
		r.close()
	})
}

func TestUpstreamWithoutSettings(t *testing.T) {
	for name, speak := range map[string]func(*rig){
		"silent":  func(*rig) {},
		"other":   func(r *rig) { r.up.check(r.up.fr.WritePing(false, [8]byte{})) },
		"ack":     func(r *rig) { r.up.check(r.up.fr.WriteSettingsAck()) },
		"closing": func(r *rig) { r.up.conn.Close() },
		"no HTTP/2": func(r *rig) {
			_, _ = r.up.conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{SettingsTimeout: 3 * time.Second}, &testSession{})
				speak(r)
				<-r.ran
				if !errors.Is(r.err, ErrNoSettings) {
					t.Errorf("got %v", r.err)
				}
				if got := r.client.got(); len(got) > 0 || !r.client.closed() {
					t.Errorf("the client got %q", got)
				}
				r.close()
			})
		})
	}
}

func TestStartFailsOrTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, &testSession{start: func(context.Context, func()) error { return errors.New("no") }})
		r.up.check(r.up.fr.WriteSettings())
		<-r.ran
		if r.err == nil || r.err.Error() != "no" {
			t.Errorf("got %v", r.err)
		}
		r.client.want("nothing")
		r.close()
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, &testSession{start: func(context.Context, func()) error { pass(time.Minute); return nil }})
		r.hello()
		r.client.call(1, "/p")
		r.up.want("while it starts")
		pass(time.Minute)
		r.up.want("then", "HEADERS 3 :method=POST :scheme=http :path=/p :authority=a")
		r.close()
	})
}

func TestShutdownBeforeTheClientHeardAnything(t *testing.T) {
	for name, drain := range map[string]func(*rig){
		"early":    func(r *rig) { r.pair.Shutdown() },
		"by Start": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &testSession{}
				if drain == nil {
					s.start = func(_ context.Context, drain func()) error { drain(); return nil }
				}
				r := newRig(t, Config{}, s)
				if drain != nil {
					drain(r)
				}
				r.client.want("before the upstream's settings")
				r.up.check(r.up.fr.WriteSettings())
				synctest.Wait()
				events := r.client.all()
				if len(events) < 3 || events[0].typ != http2.FrameSettings {
					t.Fatalf("got %v", events)
				}
				if last := events[len(events)-2:]; last[0].String() != "GOAWAY 2147483647 NO_ERROR" || last[1].typ != http2.FramePing {
					t.Errorf("got %v", events)
				}
				r.close()
			})
		})
	}
}

func TestReadPreface(t *testing.T) {
	for name, test := range map[string]struct {
		sent, got string
		err       error
	}{
		"right":    {http2.ClientPreface, "", nil},
		"HTTP/1":   {"GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", ErrNotHTTP2},
		"no bytes": {"", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			go func() {
				for i := range len(test.sent) { // byte by byte
					if _, err := client.Write([]byte{test.sent[i]}); err != nil {
						return
					}
				}
				client.Close()
			}()
			c, got, err := ReadPreface(server, 10*time.Second)
			server.Close()
			if test.sent == "" {
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if !errors.Is(err, test.err) || (c != nil) != (test.err == nil) || len(got) > 0 && string(got) != test.got[:len(got)] {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
