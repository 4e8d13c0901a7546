package relay

import (
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// TestWhatIsOnItsWay has the client go on with streams that the proxy ended first:
// what it sent before it knew is no error, and what comes after its own end is.
func TestWhatIsOnItsWay(t *testing.T) {
	s := &testSession{route: func(string) Route { return Route{Refuse: &Status{codes.Unimplemented, "what"}} }}
	for name, end := range map[string]func(r *rig, id uint32){
		"DATA":       func(r *rig, id uint32) { r.client.data(id, true, []byte("x")) },
		"trailers":   func(r *rig, id uint32) { r.client.headers(id, true, "a", "b") },
		"RST_STREAM": func(r *rig, id uint32) { r.client.check(r.client.fr.WriteRSTStream(id, http2.ErrCodeCancel)) },
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, s, func(r *rig) {
				for id := uint32(1); id < 2*mostLeavers; id += 2 {
					r.client.call(id, "/p")
				}
				r.client.got()
				for id := uint32(1); id < 2*mostLeavers; id += 2 {
					r.client.data(id, false, []byte("x"))
					end(r, id)
				}
				r.client.want("nothing")
				r.client.data(1, false, nil)
				r.client.want("error", "RST_STREAM 1 STREAM_CLOSED")
				r.client.headers(3, true, "a", "b")
				r.client.want("end", "GOAWAY 127 STREAM_CLOSED")
			})
		})
	}
}

// TestLeavers keeps the latest apart and gives older ones the benefit of doubt.
func TestLeavers(t *testing.T) {
	var l leavers
	for id := uint32(1); id <= 2*mostLeavers+1; id += 2 {
		l.add(id)
	}
	l.forget(5)
	l.forget(99999)
	for id, want := range map[uint32]bool{1: true, 3: true, 5: false, 7: true, 2*mostLeavers + 1: true, 2*mostLeavers + 3: false} {
		if got := l.has(id); got != want {
			t.Errorf("has(%d) is %v", id, got)
		}
	}
	for id := uint32(1001); id < 1001+4*mostLeavers; id += 2 {
		l.add(id)
	}
	if len(l.ids) != mostLeavers || !l.has(5) {
		t.Errorf("%d are told apart, 5 is expected: %v", len(l.ids), l.has(5))
	}
}
