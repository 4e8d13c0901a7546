package relay

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// FuzzReader cuts bytes into frames as x/net's Framer does, however they come.
func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: 1, Val: 2})
	_ = fr.WriteData(1, true, make([]byte, 5000))
	_ = fr.WritePing(true, [8]byte{1, 2})
	_ = fr.WriteRawFrame(200, 77, 1<<31-1, []byte("x"))
	f.Add(b.Bytes(), byte(0))
	f.Add(b.Bytes(), byte(1))
	f.Add(append(b.Bytes(), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0), byte(2))
	f.Fuzz(func(t *testing.T, data []byte, how byte) {
		var src io.Reader = bytes.NewReader(data)
		switch how % 4 {
		case 1:
			src = iotest.OneByteReader(src)
		case 2:
			src = iotest.HalfReader(src)
		case 3:
			src = iotest.DataErrReader(src)
		}
		rd := newReader(src)
		defer rd.release()
		oracle := http2.NewFramer(nil, bytes.NewReader(data))
		oracle.SetMaxReadFrameSize(maxFramePayload)
		oracle.AllowIllegalReads = true
		rest := data
		for {
			want, oracleErr := oracle.ReadFrameHeader()
			got, err := rd.next()
			if oracleErr != nil || int(want.Length) > len(rest)-frameHeaderSize {
				if err == nil {
					t.Fatalf("got %v, the Framer %v", got, oracleErr)
				}
				return
			}
			payload := rest[frameHeaderSize : frameHeaderSize+want.Length]
			if err != nil || got.typ != want.Type || got.flags != want.Flags || got.id != want.StreamID || !bytes.Equal(got.payload, payload) {
				t.Fatalf("got %v (%v), the Framer %v", got, err, want)
			}
			rest = rest[frameHeaderSize+want.Length:]
			if _, err := oracle.ReadFrameForHeader(want); err != nil {
				// It judges the payload too, which is not the reader's business.
				oracle = http2.NewFramer(nil, bytes.NewReader(rest))
				oracle.SetMaxReadFrameSize(maxFramePayload)
				oracle.AllowIllegalReads = true
			}
		}
	})
}

// FuzzPair has both peers follow a script of frames, right ones and wrong ones,
// and bytes that are none. The pair must end when they do, and keep nothing.
func FuzzPair(f *testing.F) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		script := make([]byte, 20+rnd.IntN(600))
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4000 {
			return
		}
		synctest.Test(t, func(t *testing.T) { play(t, script) })
	})
}

func play(t *testing.T, script []byte) {
	next := func() byte {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return b
	}
	waits := &funcs{
		rewrite: func(_ Direction, msg, scratch []byte) Verdict {
			if len(msg) == 0 {
				return Verdict{Msg: append(scratch[:0], "gift"...)}
			}
			switch msg[0] % 8 {
			case 1:
				return Verdict{Action: Park}
			case 2:
				return Verdict{Action: Drop}
			case 3:
				return Verdict{Action: Refuse, Status: &Status{3, "no"}}
			case 4:
				return Verdict{Msg: append(scratch[:0], msg...), Reply: []byte("reply")}
			case 5:
				return Verdict{Msg: msg, Untouched: true}
			}
			return Verdict{Msg: msg[1:]}
		},
		wait: func(ctx context.Context, _ Direction, msg []byte) Verdict {
			select {
			case <-time.After(time.Duration(len(msg)) * time.Millisecond):
			case <-ctx.Done():
			}
			return Verdict{Msg: msg}
		},
		lane: func(_ Direction, msg []byte) (int64, bool) { return int64(len(msg) % 3), len(msg)%5 == 0 },
	}
	routes := []Route{{}, {Codec: waits}, {Codec: waits, MaxRequest: 100}, {Refuse: &Status{12, ""}}, {HTTPStatus: 404, HTTPBody: "no"}, {Codec: waits, Long: true},
		{Serve: http.HandlerFunc(echo)}, {Serve: http.HandlerFunc(echo), Long: true}}
	s := &testSession{
		route: func(path string) Route { return routes[int(path[len(path)-1])%len(routes)] },
		own:   &OwnCall{Path: "/own", Done: func([]byte, error) {}},
	}
	r := newRig(t, Config{Budget: NewBudget(100_000), QueueLimit: 50_000, MaxStreams: 20}, s)
	r.client.inStep, r.up.inStep = false, false
	r.client.t, r.up.t = ignoring{t}, ignoring{t}
	r.hello()
	for len(script) > 0 {
		p := []*peer{r.client, r.up}[next()%2]
		p.act(r, next)
		if next()%4 == 0 {
			synctest.Wait()
		}
	}
	pass(time.Millisecond)
	r.close()
}

// echo answers with what it reads, and sometimes with less or more.
func echo(w http.ResponseWriter, r *http.Request) {
	b := make([]byte, 5000)
	for {
		n, err := r.Body.Read(b)
		if n > 0 {
			switch b[0] % 8 {
			case 1:
				panic(http.ErrAbortHandler)
			case 2:
				return
			case 3:
				<-r.Context().Done()
			case 4:
				_, _ = w.Write(make([]byte, 1<<20))
			case 5:
				w.(http.Flusher).Flush()
			}
		}
		if _, err := w.Write(b[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// ignoring lets a peer that is lied to hold its tongue.
type ignoring struct{ *testing.T }

// Errorf implements testing.TB.
func (ignoring) Errorf(string, ...any) {}

// act sends one thing.
func (p *peer) act(r *rig, next func() byte) {
	id := uint32(next()%16)*2 + 1
	if next()%32 == 0 {
		id = uint32(next())
	}
	flags := next()
	size := int(next()) * int(next()%64)
	end := flags&1 != 0
	switch next() % 20 {
	case 0, 1, 2:
		p.call(id, "/p"+string(rune('a'+flags%8)), "grpc-encoding", []string{"identity", "gzip", "x"}[max(int(flags)%40-37, 0)])
	case 3, 4:
		p.headers(id, end, ":status", []string{"200", "200", "103", "500"}[flags%4])
	case 5:
		p.headers(id, end, "grpc-status", "0")
	case 6, 7, 8, 9:
		msg := make([]byte, size)
		if size > 0 {
			msg[0] = flags
		}
		p.data(id, end, framed(msg))
	case 10:
		p.data(id, end, framed(make([]byte, 100_000))[:size])
	case 11:
		p.data(id, end, make([]byte, size))
	case 12:
		p.check(p.fr.WriteRSTStream(id, http2.ErrCode(flags%4)))
	case 13:
		p.check(p.fr.WriteWindowUpdate(id*uint32(flags%2), uint32(size)+1))
	case 14:
		p.check(p.fr.WriteSettings(http2.Setting{ID: http2.SettingID(flags % 8), Val: uint32(size)}))
	case 15:
		p.check(p.fr.WriteGoAway(id*uint32(flags%3), 0, nil))
	case 16:
		p.check(p.fr.WriteRawFrame(http2.FrameType(flags), http2.Flags(next()), id, make([]byte, min(size, 100))))
	case 17:
		p.check(p.fr.WriteDataPadded(id, end, make([]byte, min(size, 1000)), make([]byte, flags)))
	case 18:
		switch flags % 8 {
		case 0:
			r.pair.Shutdown()
		case 1:
			pass(time.Duration(size) * time.Millisecond)
		case 2:
			_, _ = p.conn.Write([]byte{flags, next(), next()})
		case 3:
			p.conn.Close()
		case 4:
			_ = p.conn.(*memConn).CloseWrite()
		}
	case 19:
		p.check(p.fr.WritePing(end, [8]byte{flags}))
	}
}
