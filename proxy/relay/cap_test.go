package relay

import (
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// TestQueueCapWithholdsTheConnectionWindow fills many streams' queues.
func TestQueueCapWithholdsTheConnectionWindow(t *testing.T) {
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		t.Run(name, func(t *testing.T) {
			const limit = 1 << 20
			pipes(t, Config{QueueLimit: limit}, &testSession{route: route}, func(r *rig) {
				r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
				s := &sender{p: r.up, conn: connWindow}
				r.client.inStep, r.up.inStep = false, false
				total := 0
				msg := framed(make([]byte, 60_000))
				var last uint32
				for id := uint32(1); id < 1000; id += 2 {
					r.client.call(id, "/p")
					synctest.Wait()
					r.up.headers(id+2, false, ":status", "200")
					synctest.Wait()
					s.stream = serverWindow
					for _, e := range r.up.all() {
						if e.typ == http2.FrameWindowUpdate && e.id == 0 {
							s.conn += int(e.n)
						}
					}
					if s.conn < len(msg) {
						break
					}
					r.up.data(id+2, false, msg)
					synctest.Wait()
					s.conn -= len(msg)
					total += len(msg)
					last = id
				}
				if total < limit || total > 3*limit+connWindow {
					t.Errorf("the upstream could send %d bytes", total)
				}
				// The client reads: the window comes back, and nothing is lost.
				got := 0
				r.client.all()
				for id := uint32(1); id <= last; id += 2 {
					r.client.check(r.client.fr.WriteWindowUpdate(id, 1<<20))
				}
				synctest.Wait()
				for _, e := range r.client.all() {
					got += len(e.data)
				}
				if got != total {
					t.Errorf("the client got %d bytes of %d", got, total)
				}
				for _, e := range r.up.all() {
					if e.typ == http2.FrameWindowUpdate && e.id == 0 {
						s.conn += int(e.n)
					}
				}
				if s.conn < connWindow-creditStep {
					t.Errorf("%d of the connection's window came back", s.conn)
				}
			})
		})
	}
}

// TestWindowComesBackWhenAQueueIsDropped has the client reset the streams whose
// queues have the connection's window withheld: nothing else moves then.
func TestWindowComesBackWhenAQueueIsDropped(t *testing.T) {
	pipes(t, Config{QueueLimit: 50_000}, &testSession{}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		const each, streams = 200_000, creditStep/200_000 + 1
		for id := uint32(1); id < 2*streams; id += 2 {
			r.client.call(id, "/p")
			r.up.headers(id+2, false, ":status", "200")
			r.up.data(id+2, false, make([]byte, each))
		}
		if _, window := bytesOf(r.up.all(), 0); window != 0 {
			t.Errorf("a window of %d with a full queue", window)
		}
		for id := uint32(1); id < 2*streams; id += 2 {
			r.client.check(r.client.fr.WriteRSTStream(id, http2.ErrCodeCancel))
		}
		if _, window := bytesOf(r.up.all(), 0); window < creditStep {
			t.Errorf("a window of %d without", window)
		}
	})
}

// TestNoMessageIsBegunPastTheCap has too much queued for a client: a message of
// another stream is not put together before that is gone.
func TestNoMessageIsBegunPastTheCap(t *testing.T) {
	pipes(t, Config{QueueLimit: 50_000}, &testSession{route: rewritten}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.call(1, "/p")
		r.client.call(3, "/p")
		r.up.headers(3, false, ":status", "200")
		r.up.headers(5, false, ":status", "200")
		r.up.data(3, false, framed(make([]byte, 60_000)))
		r.up.all()
		msg := framed(make([]byte, 1<<20))
		r.up.data(5, false, msg[:10_000])
		if _, window := bytesOf(r.up.all(), 5); window != 0 {
			t.Errorf("a window of %d for a message past the cap", window)
		}
		r.client.check(r.client.fr.WriteWindowUpdate(1, 100_000))
		if _, window := bytesOf(r.up.all(), 5); window < 1<<20-serverWindow {
			t.Errorf("a window of %d then", window)
		}
		r.client.check(r.client.fr.WriteWindowUpdate(3, 2<<20))
		r.client.all()
		r.up.data(5, false, msg[10_000:])
		if data, _ := bytesOf(r.client.all(), 3); len(data) != len(msg) {
			t.Errorf("%d bytes came", len(data))
		}
	})
}

// TestMessageInTheBudgetIsLetIn has so much queued that the connection's window
// is withheld: a message that keeps others from the budget must come all the
// same.
func TestMessageInTheBudgetIsLetIn(t *testing.T) {
	pipes(t, Config{QueueLimit: 100_000, Budget: NewBudget(64 << 20)}, &testSession{route: func(path string) Route {
		if path == "/raw" {
			return Route{}
		}
		return rewritten(path)
	}}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		for i, path := range []string{"/list", "/raw"} {
			r.client.call(uint32(2*i+1), path)
			r.up.headers(uint32(2*i+3), false, ":status", "200")
		}
		r.up.inStep = false
		s := &sender{p: r.up, conn: connWindow}
		msg := framed(make([]byte, connWindow+1<<20))
		r.up.data(3, false, msg[:10_000])
		synctest.Wait()
		r.up.data(5, false, make([]byte, 200_000)) // passes the limit
		synctest.Wait()
		s.conn -= 210_000
		for b := msg[10_000:]; len(b) > 0; b = b[min(len(b), 100_000):] {
			for _, e := range r.up.all() {
				if e.typ == http2.FrameWindowUpdate && e.id == 0 {
					s.conn += int(e.n)
				}
			}
			if s.conn -= 100_000; s.conn < 0 {
				t.Fatalf("no window for the last %d bytes", len(b))
			}
			r.up.data(3, false, b[:min(len(b), 100_000)])
			synctest.Wait()
		}
		r.client.all()
		r.client.check(r.client.fr.WriteWindowUpdate(1, maxWindow))
		if data, _ := bytesOf(r.client.all(), 1); len(data) != len(msg) {
			t.Errorf("%d bytes came", len(data))
		}
	})
}
