package relay

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// TestUpstreamDiesWithAnswersQueued ends the upstream's leg when one answer is
// there whole, and waits for the client's window, and another is not.
func TestUpstreamDiesWithAnswersQueued(t *testing.T) {
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: route}, func(r *rig) {
				r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3}))
				r.client.call(1, "/p")
				r.client.call(3, "/p")
				r.up.answer(3, []byte("whole"))
				r.up.headers(5, false, ":status", "200")
				r.up.data(5, false, framed([]byte("in part")))
				r.up.conn.Close()
				r.client.want("so far", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00"`, "HEADERS 3 :status=200", `DATA 3 "\x00\x00\x00"`, "GOAWAY 3 NO_ERROR")
				r.client.call(5, "/p")
				r.client.data(5, true, []byte("x"))
				r.client.data(1, true, nil)
				r.client.check(r.client.fr.WriteWindowUpdate(1, 100))
				r.client.want("the rest", `DATA 1 "\x00\x05whole"`, "HEADERS 1 grpc-status=0 end")
				if !r.client.closed() {
					t.Error("the client's leg is open")
				}
				pass(2 * lingerTime)
				<-r.ran
				if r.err != nil {
					t.Errorf("Run: %v", r.err)
				}
			})
		})
	}
}

// TestUpstreamDiesAndTheClientDoesNotRead bounds the wait.
func TestUpstreamDiesAndTheClientDoesNotRead(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.call(1, "/p")
		r.up.answer(3, []byte("whole"))
		before := time.Now()
		r.up.conn.Close()
		<-r.ran
		if took := time.Since(before); took != drainTime {
			t.Errorf("it took %v", took)
		}
	})
}

// TestUpstreamDiesInSilence has nothing queued: the client's leg ends at once,
// and without a GOAWAY that would have it repeat what may have been done.
func TestUpstreamDiesInSilence(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.conn.Close()
		r.client.want("no word")
		if !r.client.closed() {
			t.Error("the client's leg is open")
		}
	})
}

// TestAnswerIsNotTakenBack has the client write what nobody reads any more: on
// TCP a close would then take back what it has not read yet.
func TestAnswerIsNotTakenBack(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		gate := r.client.hold()
		r.client.check(r.client.fr.WritePing(false, [8]byte{})) // has the reader wait at the gate
		r.up.answer(3, []byte("whole"))
		r.client.inStep = false
		go func() {
			for range 100 {
				r.client.check(r.client.fr.WritePing(true, [8]byte{}))
			}
		}()
		r.up.conn.Close()
		synctest.Wait()
		r.client.mu.Lock()
		r.client.gate = nil
		r.client.mu.Unlock()
		close(gate)
		synctest.Wait()
		if data, _ := bytesOf(r.client.all(), 1); !bytes.Equal(data, framed([]byte("whole"))) {
			t.Errorf("got %q", data)
		}
	})
}

func TestClientEnds(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.client.data(1, true, []byte("last words"))
		if err := r.client.conn.(*memConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		<-r.ran
		r.up.want("what was sent", "HEADERS 3 "+pHeaders, `DATA 3 "last words" end`)
		if r.err != nil || !r.up.closed() {
			t.Errorf("Run: %v", r.err)
		}
	})
}

func TestContextEndsThePair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, clientEnd := newMemConns(1 << 20)
		up, upEnd := newMemConns(1 << 20)
		go func() { _, _ = client.Write([]byte(http2.ClientPreface)) }()
		c, _, err := ReadPreface(clientEnd, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- New(Config{}, &testSession{}, c, upEnd).Run(ctx) }()
		if err := http2.NewFramer(up, up).WriteSettings(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		why := errors.New("why")
		cancel(why)
		if err := <-done; !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		client.Close()
		up.Close()
	})
}

// TestProtocolErrorIsHeard has a client that sends on after its mistake.
func TestProtocolErrorIsHeard(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.check(r.client.fr.WriteRawFrame(http2.FramePushPromise, 0, 1, nil))
		for range 10 {
			r.client.check(r.client.fr.WritePing(false, [8]byte{}))
		}
		r.client.want("end", "GOAWAY 0 PROTOCOL_ERROR")
		before := time.Now()
		<-r.ran
		if r.err == nil || time.Since(before) > lingerTime {
			t.Errorf("after %v: %v", time.Since(before), r.err)
		}
	})
}

// TestAReaderAfterTheEnd has a reader flush what is not its own to write when the pair
// has just ended: it must not wait for somebody else to write it.
func TestAReaderAfterTheEnd(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		p := r.pair
		p.mu.Lock()
		p.closed = true // as fail does before it closes the connections
		p.legs[Request].ping(0, [8]byte{})
		p.mu.Unlock()
		p.flushFrom(Response)
		p.mu.Lock()
		p.closed = false
		p.mu.Unlock()
	})
}
