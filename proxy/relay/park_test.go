package relay

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// lot is a codec that parks each message that begins with "wait" until it is
// let go by its text. A message "lane:N:..." is of lane N, others are barriers.
type lot struct {
	mu      sync.Mutex
	gates   map[string]chan struct{}
	waiting map[string]bool
	most    int // that waited at once
	ended   int // by their context
}

func newLot() *lot { return &lot{gates: map[string]chan struct{}{}, waiting: map[string]bool{}} }

func (l *lot) gate(msg string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gates[msg] == nil {
		l.gates[msg] = make(chan struct{})
	}
	return l.gates[msg]
}

func key(msg []byte) string { return string(msg[:min(len(msg), 40)]) }

func (l *lot) Rewrite(_ Direction, msg, _ []byte) Verdict {
	if bytes.Contains(msg[:min(len(msg), 40)], []byte("wait")) {
		return Verdict{Action: Park}
	}
	return Verdict{Msg: msg}
}

func (l *lot) Wait(ctx context.Context, _ Direction, msg []byte) Verdict {
	g := l.gate(key(msg))
	l.mu.Lock()
	l.waiting[key(msg)] = true
	l.most = max(l.most, len(l.waiting))
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, key(msg))
		l.mu.Unlock()
	}()
	select {
	case <-g:
	case <-ctx.Done():
		l.mu.Lock()
		l.ended++
		l.mu.Unlock()
	}
	return Verdict{Msg: msg}
}

func (l *lot) Lane(_ Direction, msg []byte) (lane int64, barrier bool) {
	if n, _ := fmt.Sscanf(string(msg), "lane:%d:", &lane); n == 1 {
		return lane, false
	}
	return 0, true
}

func (l *lot) open(msg string) {
	close(l.gate(msg))
	synctest.Wait()
}

func (l *lot) route(string) Route { return Route{Codec: l} }

// texts returns the messages of a stream among events.
func texts(events []event, id uint32) string {
	data, _ := bytesOf(events, id)
	var list []string
	for len(data) >= messagePrefixSize {
		n := int(data[3])<<8 | int(data[4]) | int(data[2])<<16
		list = append(list, key(data[5:5+n]))
		data = data[5+n:]
	}
	return strings.Join(list, " ")
}

func TestParkedStreamHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLot()
		r := newRig(t, Config{Budget: NewBudget(1 << 20)}, &testSession{route: l.route})
		defer r.close()
		r.hello()
		r.client.call(1, "/p")
		r.client.data(1, false, framed([]byte("wait")))
		r.client.data(1, true, framed([]byte("behind")))
		r.client.call(3, "/p")
		r.client.data(3, true, framed([]byte("free")))
		r.up.want("headers at once, data of the free one", "HEADERS 3 "+pHeaders, "HEADERS 5 "+pHeaders, `DATA 5 "\x00\x00\x00\x00\x04free" end`)
		l.open("wait")
		events := r.up.all()
		if got := texts(events, 3); got != "wait behind" || !events[len(events)-1].end {
			t.Errorf("got %s: %v", got, events)
		}
	})
}

// TestLanesAndBarriers has responses of several lanes on one stream.
func TestLanesAndBarriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLot()
		r := newRig(t, Config{}, &testSession{route: l.route})
		defer r.close()
		r.hello()
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		for _, m := range []string{"lane:1:wait", "lane:2:a", "lane:1:b", "lane:2:wait", "lane:3:c", "barrier", "lane:3:d", "lane:4:wait"} {
			r.up.data(3, false, framed([]byte(m)))
		}
		r.up.headers(3, true, "grpc-status", "0")
		check := func(what, want string) {
			t.Helper()
			synctest.Wait()
			if got := texts(r.client.all(), 1); got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
		check("other lanes pass", "lane:2:a lane:3:c")
		l.open("lane:1:wait")
		check("its lane follows", "lane:1:wait lane:1:b")
		l.open("lane:2:wait")
		check("the barrier, and what is behind", "lane:2:wait barrier lane:3:d")
		close(l.gate("lane:4:wait"))
		synctest.Wait()
		events := r.client.all()
		if got := texts(events, 1); got != "lane:4:wait" || !events[len(events)-1].end {
			t.Errorf("at the end %v", events)
		}
	})
}

// TestParkedIsBounded sends more than may be held behind a parked message.
func TestParkedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLot()
		r := newRig(t, Config{}, &testSession{route: l.route})
		defer r.close()
		r.hello()
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		r.up.data(3, false, framed([]byte("wait")))
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprint("m", i))
			r.up.data(3, false, framed([]byte(want[i])))
		}
		r.up.headers(3, true, "grpc-status", "0")
		r.pair.mu.Lock()
		if n := len(r.pair.streams[1].half[Response].entries); n > maxHeld {
			t.Errorf("%d messages are held", n)
		}
		r.pair.mu.Unlock()
		if got := texts(r.client.all(), 1); got != "" {
			t.Errorf("passed: %s", got)
		}
		l.open("wait")
		events := r.client.all()
		if got := texts(events, 1); got != "wait "+strings.Join(want, " ") || !events[len(events)-1].end {
			t.Errorf("%d events", len(events))
		}
	})
}

// TestParkedMemoryIsBounded parks more than the budget allows: the rest is
// refused.
func TestParkedMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLot()
		r := newRig(t, Config{Budget: NewBudget(100_000)}, &testSession{route: l.route})
		defer r.close()
		r.hello()
		for id := uint32(1); id < 20; id += 2 {
			r.client.call(id, "/p")
			r.client.data(id, true, framed(append([]byte("wait"), make([]byte, 20_000)...)))
		}
		refused := 0
		for _, e := range r.client.all() {
			if e.typ == http2.FrameHeaders && strings.Contains(e.String(), "grpc-status=14") {
				refused++
			}
		}
		if refused != 10-100_000/20_004 {
			t.Errorf("%d refused", refused)
		}
		r.pair.mu.Lock()
		if p := r.pair.cfg.Budget.parked; p > 100_000 {
			t.Errorf("%d bytes parked", p)
		}
		r.pair.mu.Unlock()
	})
}

// TestParkedEndsWithItsStream: waits are cancelled and what comes of them goes
// nowhere.
func TestParkedEndsWithItsStream(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"client":   func(r *rig) { r.client.check(r.client.fr.WriteRSTStream(1, 8)) },
		"upstream": func(r *rig) { r.up.check(r.up.fr.WriteRSTStream(3, 8)) },
		"pair":     func(r *rig) { r.client.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLot()
				r := newRig(t, Config{Budget: NewBudget(1 << 20)}, &testSession{route: l.route})
				defer r.close()
				r.hello()
				r.client.call(1, "/p")
				r.client.data(1, false, framed([]byte("wait")))
				r.client.data(1, true, framed([]byte("behind")))
				r.up.got()
				end(r)
				synctest.Wait()
				if l.ended != 1 || len(l.waiting) != 0 {
					t.Errorf("%d ended, %d wait", l.ended, len(l.waiting))
				}
				for _, e := range r.up.all() {
					if e.typ == http2.FrameData {
						t.Errorf("upstream got %v", e)
					}
				}
			})
		})
	}
}

// TestSixteenParkedAndSlowReaders is the case: sixteen parked messages
// of 1 MiB and readers that do not read, on one connection; a call passes.
func TestSixteenParkedAndSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLot()
		r := newRig(t, Config{Budget: NewBudget(64 << 20)}, &testSession{route: l.route})
		defer r.close()
		r.hello()
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		r.client.inStep, r.up.inStep = false, false
		id := uint32(1)
		for ; id < 32; id += 2 {
			r.client.call(id, "/put")
			msg := framed(append(fmt.Appendf(nil, "wait%03d", id), make([]byte, 1<<20)...))
			synctest.Wait()
			r.client.data(id, false, msg[:50_000])
			synctest.Wait()
			r.client.data(id, true, msg[50_000:])
		}
		synctest.Wait()
		for ; id < 64; id += 2 {
			r.client.call(id, "/list")
			synctest.Wait()
			r.up.headers(id+2, false, ":status", "200")
			synctest.Wait()
			r.up.data(id+2, false, framed(make([]byte, 250_000)))
			synctest.Wait()
		}
		r.client.inStep, r.up.inStep = true, true
		if l.most != 16 {
			t.Fatalf("%d parked", l.most)
		}
		r.client.all()
		r.client.call(id, "/get")
		r.client.data(id, true, framed([]byte("q")))
		r.client.check(r.client.fr.WriteWindowUpdate(id, 1000))
		r.up.answer(id+2, []byte("alive"))
		if got := texts(r.client.all(), id); got != "alive" {
			t.Errorf("got %q", got)
		}
		for id := 1; id < 32; id += 2 {
			l.open(key(append(fmt.Appendf(nil, "wait%03d", id), make([]byte, 50)...)))
		}
		total := 0
		for _, e := range r.up.all() {
			total += len(e.data)
		}
		if total != 16*(1<<20+12)+6 {
			t.Errorf("%d bytes came", total)
		}
	})
}

func TestDropAndReply(t *testing.T) {
	s := &testSession{route: func(string) Route {
		return Route{Codec: &funcs{rewrite: func(d Direction, msg, _ []byte) Verdict {
			switch string(msg) {
			case "drop":
				return Verdict{Action: Drop}
			case "reply":
				return Verdict{Msg: msg, Reply: []byte("back")}
			}
			return Verdict{Msg: msg}
		}}}
	}}
	pipes(t, Config{}, s, func(r *rig) {
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		r.client.data(1, false, framed([]byte("half"))[:7]) // the reply must not land within it
		for _, m := range []string{"drop", "reply", "plain"} {
			r.up.data(3, false, framed([]byte(m)))
		}
		r.client.data(1, false, framed([]byte("half"))[7:])
		r.client.data(1, true, framed([]byte("drop")))
		if got := texts(r.client.all(), 1); got != "reply plain" {
			t.Errorf("the client got %s", got)
		}
		events := r.up.all()
		if got := texts(events, 3); got != "back half" || !events[len(events)-1].end {
			t.Errorf("the upstream got %s", got)
		}
	})
}
