package relay

import (
	"fmt"
	"testing"
)

// TestBandwidthPingsWait has both peers send the PING by which gRPC for Go measures. The
// answer goes along with what is written anyway, when it is due, and never alone.
func TestBandwidthPingsWait(t *testing.T) {
	answer := fmt.Sprintf("PING %q ack", string(bandwidthPing[:]))
	for _, of := range []string{"client", "upstream"} {
		t.Run(of, func(t *testing.T) {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				r.client.call(1, "/p")
				r.up.headers(3, false, ":status", "200")
				peer, send := r.client, func(b string) { r.up.data(3, false, []byte(b)) }
				data := "DATA 1"
				if of == "upstream" {
					peer, send = r.up, func(b string) { r.client.data(1, false, []byte(b)) }
					data = "DATA 3"
				}
				ping := func() { peer.check(peer.fr.WritePing(false, bandwidthPing)) }
				r.client.all()
				r.up.all()

				ping()
				send("a")
				peer.want("early", data+` "a"`)
				pass(probeTime)
				peer.want("nothing alone")
				send("b")
				peer.want("due", data+` "b"`, answer)
				send("c")
				peer.want("once", data+` "c"`)

				ping()
				pass(probeTime)
				ping()
				peer.want("to one that does not wait", answer, answer)
			})
		})
	}
}
