package relay

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
)

// records is a codec of messages that are made of records: a byte that says how many
// follow. Ahead drops that byte and turns the others over; it takes nothing from a
// record of length 255 on.
type records struct {
	funcs
	size int // as Ahead was told
}

func (c *records) Ahead(size int, dst, part []byte) (out []byte, used, need int) {
	c.size = size
	for {
		left := part[used:]
		switch {
		case len(left) == 0:
			return dst, used, 1
		case left[0] == 255:
			return dst, used, 0
		case len(left) <= int(left[0]):
			return dst, used, 1 + int(left[0])
		}
		n := 1 + int(left[0])
		for _, b := range left[1:n] {
			dst = append(dst, ^b)
		}
		used += n
	}
}

// TestAhead cuts messages into frames anywhere: what comes of them is the same.
func TestAhead(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var msg, want []byte
		stopped := random.IntN(2) == 0
		for range 2 + random.IntN(300) {
			n := random.IntN(255)
			msg = append(msg, byte(n))
			for range n {
				b := byte(random.Uint32())
				msg, want = append(msg, b), append(want, ^b)
			}
		}
		if stopped { // by such a record, or in the middle of one
			rest := append([]byte{byte(254 + random.IntN(2))}, make([]byte, random.IntN(40_000))...)
			if rest[0] == 254 && len(rest) > 200 {
				rest = rest[:200]
			}
			msg, want = append(msg, rest...), append(want, rest...)
		}
		codec := &records{}
		pipes(t, Config{}, &testSession{route: func(string) Route { return Route{Codec: codec} }}, func(r *rig) {
			r.client.call(1, "/p")
			r.up.headers(3, false, ":status", "200")
			data := framed(msg)
			r.up.data(3, false, data[:6]) // what lies in one frame is not begun ahead of its end
			for data = data[6:]; len(data) > 0; {
				n := min(len(data), 1+random.IntN(maxFramePayload))
				r.up.data(3, false, data[:n])
				data = data[n:]
			}
			synctest.Wait()
			if got, _ := bytesOf(r.client.all(), 1); !bytes.Equal(got, framed(want)) {
				t.Fatalf("%d bytes became %d, not the %d wanted", len(msg), len(got)-messagePrefixSize, len(want))
			}
			if codec.size != len(msg) {
				t.Errorf("a message of %d bytes was said to have %d", len(msg), codec.size)
			}
		})
	}
}

// TestAheadOfNothingHeld has a message wait for its codec: the next one of the stream
// is not begun ahead.
func TestAheadOfNothingHeld(t *testing.T) {
	var release chan struct{}
	codec := &records{}
	codec.rewrite = func(_ Direction, msg, _ []byte) Verdict {
		if msg[0] == 'w' {
			return Verdict{Action: Park}
		}
		return Verdict{Msg: msg}
	}
	codec.wait = func(_ context.Context, _ Direction, msg []byte) Verdict {
		<-release
		return Verdict{Msg: msg}
	}
	pipes(t, Config{}, &testSession{route: func(string) Route { return Route{Codec: codec} }}, func(r *rig) {
		release = make(chan struct{})
		r.client.call(1, "/p")
		r.up.headers(3, false, ":status", "200")
		r.up.data(3, false, framed([]byte("w")))
		next := framed([]byte{1, 'x', 1, 'y'})
		r.up.data(3, false, next[:7])
		r.up.data(3, false, next[7:])
		if got, _ := bytesOf(r.client.all(), 1); len(got) != 0 || codec.size != 0 {
			t.Errorf("%q came, and a message of %d was begun", got, codec.size)
		}
		close(release)
		synctest.Wait()
		if got, _ := bytesOf(r.client.all(), 1); !bytes.Equal(got, append(framed([]byte("w")), next...)) {
			t.Errorf("%q came", got)
		}
	})
}
