package relay

import (
	"fmt"
	"testing"
)

var (
	probed = fmt.Sprintf("PING %q", string(bandwidthPing[:]))
	acked  = probed + " ack"
)

// probe sends the PING by which grpc-go measures bandwidth.
func (p *peer) probe() { p.check(p.fr.WritePing(false, bandwidthPing)) }

// TestBandwidthPingsWait has either peer send it. The answer goes along with what is
// written anyway, when it is due, and alone only when nothing is.
func TestBandwidthPingsWait(t *testing.T) {
	for _, of := range []string{"client", "upstream"} {
		t.Run(of, func(t *testing.T) {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				r.client.call(1, "/p")
				r.up.headers(3, false, ":status", "200")
				peer, other, data := r.client, r.up, "DATA 1"
				send := func(b string) { r.up.data(3, false, []byte(b)) }
				if of == "upstream" {
					peer, other, data = r.up, r.client, "DATA 3"
					send = func(b string) { r.client.data(1, false, []byte(b)) }
				}
				r.client.all()
				r.up.all()

				peer.probe()
				send("a")
				peer.want("early", data+` "a"`)
				pass(probeTime)
				peer.want("nothing alone")
				send("b")
				peer.want("due", data+` "b"`, acked)
				send("c")
				peer.want("once", data+` "c"`)

				pass(probeLimit)
				peer.want("none is under way")
				pass(probeLimit / 2)
				peer.probe()
				pass(probeLimit - 1)
				peer.want("not yet")
				pass(1)
				peer.want("late, alone", acked)
				pass(10 * probeLimit)
				peer.want("once")

				peer.probe()
				peer.probe()
				peer.want("to one that does not wait", acked)
				pass(probeTime)
				send("d")
				peer.want("due", data+` "d"`, acked)

				peer.check(peer.fr.WritePing(true, bandwidthPing))
				peer.want("an answer to nothing")
				other.want("nothing of it all")
			})
		})
	}
}

// The timer of one PING may serve the next, which has a time of its own.
func TestBandwidthPingsHaveTheirTime(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		r.client.all()
		r.client.probe()
		pass(probeLimit / 2)
		r.up.data(3, false, []byte("a"))
		r.client.want("along", `DATA 1 "a"`, acked)
		r.client.probe()
		pass(probeLimit - 1)
		r.client.want("the first one's time is over, not this one's")
		pass(1)
		r.client.want("late, alone", acked)
	})
}

func TestBandwidthPingBeforeShutdown(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.probe()
		r.up.probe()
		r.pair.Shutdown()
		r.client.want("goaway", "GOAWAY 2147483647 NO_ERROR", `PING "etcdseal"`)
		r.client.check(r.client.fr.WritePing(true, drainPing))
		<-r.ran
	})
}
