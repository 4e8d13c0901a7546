package relay

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// pingStep is how late a PING may be seen.
const pingStep = 100 * time.Millisecond

// pings answers the PINGs that come within d, when reply is set, and returns
// when they came.
func (p *peer) pings(d time.Duration, reply bool) (at []time.Duration) {
	start := time.Now()
	for time.Since(start) < d && !p.closed() {
		pass(pingStep)
		for _, e := range p.all() {
			if e.typ == 6 && !e.ack {
				at = append(at, time.Since(start))
				if reply {
					p.check(p.fr.WritePing(true, [8]byte(e.data)))
				}
			}
		}
	}
	return at
}

func TestUpstreamIsPingedWhileStreamsAreOpen(t *testing.T) {
	for _, test := range []struct{ every, want time.Duration }{
		{0, 30 * time.Second},
		{time.Second, 10 * time.Second}, // never under that
	} {
		pipes(t, Config{UpstreamPing: test.every}, &testSession{}, func(r *rig) {
			if got := r.up.pings(100*time.Second, true); got != nil {
				t.Errorf("without streams: pings at %v", got)
			}
			r.client.call(1, "/p")
			pass(50 * time.Millisecond)
			got := r.up.pings(10*test.want, true)
			for i, at := range got[1:] {
				if d := at - got[i]; d < test.want || d > test.want+pingStep {
					t.Errorf("every %v: pings at %v", test.every, got)
				}
			}
			if len(got) < 9 {
				t.Errorf("every %v: pings at %v", test.every, got)
			}
			if r.pair.Streams() != 1 {
				t.Error("the pair has ended")
			}
		})
	}
}

func TestUpstreamThatTalksIsNotPinged(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		for range 30 {
			r.up.data(3, false, []byte("x"))
			if got := r.up.pings(10*time.Second, false); got != nil {
				t.Fatalf("pings at %v", got)
			}
		}
	})
}

// TestDeadUpstreamClosesTheClientsLeg, whatever the interval.
func TestDeadUpstreamClosesTheClientsLeg(t *testing.T) {
	for _, every := range []time.Duration{0, time.Second} {
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			pipes(t, Config{UpstreamPing: every}, &testSession{}, func(r *rig) {
				r.client.call(1, "/p")
				before := time.Now()
				<-r.ran
				if took := time.Since(before); took > 41*time.Second || took < 15*time.Second {
					t.Errorf("it took %v", took)
				}
				if !errors.Is(r.err, ErrSilent) {
					t.Errorf("Run: %v", r.err)
				}
				if r.client.want("nothing"); !r.client.closed() {
					t.Error("the client's leg is open")
				}
			})
		})
	}
}

// TestBackPressureIsNotSilence holds the relay's reader of the upstream up: the
// client does not read.
func TestBackPressureIsNotSilence(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		gate := r.client.hold()
		r.client.inStep, r.up.inStep = false, false
		go func() {
			for range 100 {
				r.up.data(3, false, make([]byte, 2000))
			}
		}()
		pass(5 * time.Minute)
		if r.client.mu.Lock(); r.client.err != nil {
			t.Error("the pair has ended")
		}
		r.client.gate = nil
		r.client.mu.Unlock()
		close(gate)
		pass(time.Second)
		if data, _ := bytesOf(r.client.all(), 1); len(data) != 200_000 {
			t.Errorf("%d bytes came", len(data))
		}
	})
}

func TestSilentClientIsPinged(t *testing.T) {
	pipes(t, Config{ClientPing: time.Minute, ClientPingTimeout: 20 * time.Second}, &testSession{}, func(r *rig) {
		if got := r.client.pings(150*time.Second, true); len(got) != 2 {
			t.Errorf("pings at %v", got)
		}
		before := time.Now()
		<-r.ran
		if took := time.Since(before); took > 90*time.Second {
			t.Errorf("it took %v", took)
		}
		if r.err == nil || errors.Is(r.err, ErrSilent) {
			t.Errorf("Run: %v", r.err)
		}
	})
}

func TestPingsAreAnsweredOnTheirOwnLeg(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		for i, p := range []*peer{r.client, r.up} {
			p.check(p.fr.WritePing(false, [8]byte{'a', byte('0' + i), 'c', 'd', 'e', 'f', 'g', 'h'}))
			p.want("answer", fmt.Sprintf(`PING "a%dcdefgh" ack`, i))
		}
		r.client.want("nothing was forwarded")
		r.up.want("nothing was forwarded")
	})
}
