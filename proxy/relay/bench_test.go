package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is a peer that costs nothing: it writes bytes that were made before,
// but for the stream's number, and looks only for the end of a stream.
type wire struct {
	conn  net.Conn
	rd    *reader
	first []byte // frames of the first call, which fill the table
	later []byte // of each one after it
}

// blocks encodes header lists twice: as the first call has them, and as the
// next ones do.
func blocks(lists ...[]string) (first, later [][]byte) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, out := range []*[][]byte{&first, &later} {
		for _, kv := range lists {
			b.Reset()
			for i := 0; i < len(kv); i += 2 {
				_ = enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
			}
			*out = append(*out, bytes.Clone(b.Bytes()))
		}
	}
	return first, later
}

// requests are a call's frames as grpc-go sends them.
func requests(size int) (first, later []byte) {
	f, l := blocks([]string{
		":method", "POST", ":scheme", "http", ":path", "/etcdserverpb.KV/Range", ":authority", "127.0.0.1:2379",
		"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers", "grpc-accept-encoding", "gzip", "client-api-version", "3.7",
	})
	make := func(block []byte) []byte {
		b := appendFrameHeader(nil, len(block), http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0)
		return appendMessage(append(b, block...), size, http2.FlagDataEndStream)
	}
	return make(f[0]), make(l[0])
}

// responses are an answer's frames.
func responses(size int) (first, later []byte) {
	f, l := blocks([]string{":status", "200", "content-type", "application/grpc"}, []string{"grpc-status", "0", "grpc-message", ""})
	make := func(head, tail []byte) []byte {
		b := appendFrameHeader(nil, len(head), http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0)
		b = appendMessage(append(b, head...), size, 0)
		b = appendFrameHeader(b, len(tail), http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 0)
		return append(b, tail...)
	}
	return make(f[0], f[1]), make(l[0], l[1])
}

func appendMessage(b []byte, size int, flags http2.Flags) []byte {
	msg := framed(make([]byte, size))
	for len(msg) > maxFramePayload {
		b = appendFrameHeader(b, maxFramePayload, http2.FrameData, 0, 0)
		b = append(b, msg[:maxFramePayload]...)
		msg = msg[maxFramePayload:]
	}
	b = appendFrameHeader(b, len(msg), http2.FrameData, flags, 0)
	return append(b, msg...)
}

// send writes the frames of one call.
func (w *wire) send(b *testing.B, id uint32) {
	frames := w.later
	if w.first != nil {
		frames, w.first = w.first, nil
	}
	for at := 0; at < len(frames); {
		binary.BigEndian.PutUint32(frames[at+5:], id)
		at += frameHeaderSize + int(frames[at])<<16 + int(frames[at+1])<<8 + int(frames[at+2])
	}
	if _, err := w.conn.Write(frames); err != nil {
		b.Error(err)
	}
}

// await reads until stream id ends; window it gives back at once.
func (w *wire) await(id uint32) error {
	for {
		f, err := w.rd.next()
		if err != nil {
			return err
		}
		if f.typ == http2.FrameGoAway {
			return errors.New(string(f.payload[8:]))
		}
		if f.id == id && f.flags&http2.FlagDataEndStream != 0 && (f.typ == http2.FrameData || f.typ == http2.FrameHeaders) {
			return nil
		}
	}
}

func benchmark(b *testing.B, route func(string) Route, request, response int) {
	client, clientEnd := sockets(b)
	up, upEnd := sockets(b)
	hello := appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	hello = appendWindowUpdate(hello, 0, maxWindow-defaultWindow)
	_, _ = client.Write(append([]byte(http2.ClientPreface), hello...))
	_, _ = up.Write(hello)
	c, _, err := ReadPreface(clientEnd, time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := New(Config{Budget: NewBudget(64 << 20), Observer: counting{}}, &testSession{route: route}, c, upEnd).Run(context.Background()); err != nil {
			b.Errorf("Run: %v", err)
		}
	}()
	b.Cleanup(func() { client.Close(); up.Close(); <-ran })
	if _, err := io.ReadFull(up, make([]byte, len(http2.ClientPreface))); err != nil {
		b.Fatal(err)
	}
	cw, uw := &wire{conn: client, rd: newReader(client)}, &wire{conn: up, rd: newReader(up)}
	cw.first, cw.later = requests(request)
	uw.first, uw.later = responses(response)
	go func() {
		for id := uint32(3); uw.await(id) == nil; id += 2 {
			uw.send(b, id)
		}
	}()
	down, upward := 0, 0 // bytes since window was given
	b.ReportAllocs()
	for id := uint32(1); b.Loop(); id += 2 {
		cw.send(b, id)
		if err := cw.await(id); err != nil {
			b.Fatal(err)
		}
		down, upward = top(client, down+response-48), top(up, upward+request)
	}
}

// top gives a connection window once n bytes have used much of it, and returns
// how many have been used since.
func top(c net.Conn, n int) int {
	if n < 1<<29 {
		return n
	}
	_, _ = c.Write(appendWindowUpdate(nil, 0, int64(n)))
	return 0
}

// counting is an observer that only costs the calls.
type counting struct{}

func (counting) StreamStarted(string)                   {}
func (counting) StreamEnded(string, int, time.Duration) {}

// sealing adds 48 bytes to requests, as an envelope does, and opens in place.
func sealing(string) Route {
	return Route{Codec: aSealer, MaxRequest: 2 << 20, Method: "m"}
}

type sealer struct{ funcs }

var aSealer = &sealer{}

func (*sealer) Rewrite(d Direction, msg, scratch []byte) Verdict {
	if d == Request {
		return Verdict{Msg: append(append(scratch[:0], make([]byte, 48)...), msg...)}
	}
	return Verdict{Msg: msg[min(48, len(msg)):]}
}

func BenchmarkGet(b *testing.B)     { benchmark(b, sealing, 40, 1150) }
func BenchmarkPut(b *testing.B)     { benchmark(b, sealing, 1100, 100) }
func BenchmarkList500(b *testing.B) { benchmark(b, sealing, 50, 500*1150) }
func BenchmarkRawGet(b *testing.B)  { benchmark(b, nil, 40, 1150) }
