package relay

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

const pHeaders = ":method=POST :scheme=http :path=/p :authority=a"

// TestDeferredHeadersAreEncodedWhenTheyAreWritten holds the trailers of one
// stream behind its data while other streams' blocks go out: encoded early,
// they would be read against another table.
func TestDeferredHeadersAreEncodedWhenTheyAreWritten(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.check(r.client.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		for id := uint32(1); id <= 5; id += 2 {
			r.client.call(id, "/p")
			r.client.data(id, true, nil)
		}
		r.up.want("requests", "HEADERS 3 "+pHeaders, `DATA 3 "" end`, "HEADERS 5 "+pHeaders, `DATA 5 "" end`, "HEADERS 7 "+pHeaders, `DATA 7 "" end`)
		for id := uint32(3); id <= 7; id += 2 {
			r.up.headers(id, false, ":status", "200", "first", fmt.Sprint("of ", id))
			r.up.data(id, false, []byte("x"))
			r.up.headers(id, true, "grpc-status", "0", "second", fmt.Sprint("of ", id))
		}
		r.client.want("headers, since data has no window", "HEADERS 1 :status=200 first=of 3", "HEADERS 3 :status=200 first=of 5", "HEADERS 5 :status=200 first=of 7")
	})
}

func TestNeverIndexedStays(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		for id := uint32(1); id <= 3; id += 2 {
			r.client.headers(id, true, ":method", "POST", ":scheme", "http", ":path", "/p", "!token", "secret", "plain", "value")
			r.up.headers(id+2, true, ":status", "200", "!cookie", "secret", "plain", "value")
		}
		synctest.Wait()
		for _, p := range []*peer{r.client, r.up} {
			for _, e := range p.all() {
				for _, f := range e.fields {
					if f.Sensitive != (f.Value == "secret") {
						t.Errorf("%v: sensitive %v", f, f.Sensitive)
					}
				}
			}
		}
	})
}

func TestLongBlocksBecomeContinuations(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		long := strings.Repeat("~", 30<<10) // Huffman does not shorten it
		r.client.pieces(1, ":method", "POST", ":scheme", "http", ":path", "/p", "long", long)
		synctest.Wait()
		up := r.up.all()
		if len(up) != 1 || up[0].pieces < 2 || up[0].fields[3].Value != long || !up[0].end {
			t.Fatalf("got %d events, client %v", len(up), r.client.all())
		}
		r.up.pieces(3, ":status", "200", "long", long)
		synctest.Wait()
		down := r.client.all()
		if len(down) != 1 || down[0].pieces < 2 || down[0].fields[1].Value != long || !down[0].end {
			t.Fatalf("got %d events", len(down))
		}
	})
}

// pieces sends a header block in many frames, with padding and a priority.
func (p *peer) pieces(id uint32, kv ...string) {
	b := p.block(kv...)
	step := max(100, len(b)/20)
	n := min(len(b), step)
	p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: b[:n], EndStream: true, EndHeaders: n == len(b), PadLength: 7,
		Priority: http2.PriorityParam{StreamDep: 11, Weight: 3},
	}))
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = min(len(b), step)
		p.check(p.fr.WriteContinuation(id, n == len(b), b[:n]))
	}
}

func TestRequestsThatAreNotWellFormed(t *testing.T) {
	base := []string{":method", "POST", ":scheme", "http", ":path", "/p"}
	for name, kv := range map[string][]string{
		"no method":        {":scheme", "http", ":path", "/p"},
		"no path":          {":method", "POST", ":scheme", "http"},
		"empty path":       {":method", "POST", ":scheme", "http", ":path", ""},
		"two paths":        append(base[:6:6], ":path", "/q"),
		"two authorities":  append(base[:6:6], ":authority", "a", ":authority", "b"),
		"a response's":     append(base[:6:6], ":status", "200"),
		"pseudo last":      {":method", "POST", ":scheme", "http", "a", "b", ":path", "/p"},
		"capitals":         append(base[:6:6], "Token", "x"),
		"connection":       append(base[:6:6], "connection", "close"),
		"transfer":         append(base[:6:6], "transfer-encoding", "chunked"),
		"te":               append(base[:6:6], "te", "gzip"),
		"an empty name":    append(base[:6:6], "", "x"),
		"a space in it":    append(base[:6:6], "a b", "x"),
		"a line break too": append(base[:6:6], "a\r\nb", "x"),
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				r.client.headers(1, false, kv...)
				r.client.data(1, true, []byte("rest"))
				r.client.call(3, "/p")
				r.client.want("reset", "RST_STREAM 1 PROTOCOL_ERROR")
				r.up.want("the good one alone", "HEADERS 5 "+pHeaders)
			})
		})
	}
}

func TestHeaderListTooLarge(t *testing.T) {
	// One field of the table, many times: a small block, a huge list.
	bomb := func(p *peer, kv ...string) []byte {
		b := p.block(append(kv, "big", strings.Repeat("~", 4000))...)
		return append(b, bytes.Repeat([]byte{0x80 | 62}, 1000)...)
	}
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		b := bomb(r.client, ":method", "POST", ":scheme", "http", ":path", "/p")
		r.client.check(r.client.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndStream: true, EndHeaders: true}))
		synctest.Wait()
		if got := r.client.all(); len(got) != 2 || got[0].fields[0].Value != "431" || !got[1].end {
			t.Errorf("got %v", got)
		}
		r.client.call(3, "/p")
		r.up.want("only the good one", "HEADERS 5 "+pHeaders)
		b = bomb(r.up, ":status", "200")
		r.up.check(r.up.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: b, EndHeaders: true}))
		r.client.want("the response", "RST_STREAM 3 ENHANCE_YOUR_CALM")
		r.up.want("the upstream too", "RST_STREAM 5 ENHANCE_YOUR_CALM")
		r.client.call(5, "/p")
		b = bomb(r.client)
		r.client.check(r.client.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: b, EndStream: true, EndHeaders: true}))
		r.client.want("trailers", "RST_STREAM 5 ENHANCE_YOUR_CALM")
	})
}

func TestResponsesPassUnrewritten(t *testing.T) {
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: route}, func(r *rig) {
				r.client.call(1, "/p")
				r.client.data(1, true, framed([]byte("q")))
				r.up.headers(3, false, ":status", "103", "link", "x")
				r.up.headers(3, false, ":status", "100")
				r.up.headers(3, false, ":status", "503", "content-length", "9", "grpc-encoding", "gzip")
				r.up.data(3, false, []byte("not "))
				r.up.data(3, true, []byte("gRPC!"))
				got := r.client.got()
				want := []string{"HEADERS 1 :status=103 link=x", "HEADERS 1 :status=100", "HEADERS 1 :status=503 content-length=9 grpc-encoding=gzip", `DATA 1 "not "`, `DATA 1 "gRPC!" end`}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("got %q, want %q", got, want)
				}
				if n := r.streams(); n != 0 {
					t.Errorf("%d streams", n)
				}
			})
		})
	}
}

func TestFieldsThatDoNotPassWithACodec(t *testing.T) {
	kv := []string{":method", "POST", ":scheme", "http", ":path", "/p", "grpc-encoding", "gzip", "grpc-accept-encoding", "gzip", "content-length", "5", "token", "t"}
	for name, test := range map[string]struct {
		route    func(string) Route
		up, down string
	}{
		"raw":   {nil, "HEADERS 3 :method=POST :scheme=https :path=/p grpc-encoding=gzip grpc-accept-encoding=gzip content-length=5 token=t", "HEADERS 1 :status=200 grpc-encoding=gzip content-length=5"},
		"codec": {rewritten, "HEADERS 3 :method=POST :scheme=https :path=/p token=t", "HEADERS 1 :status=200"},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{Scheme: "https"}, &testSession{route: test.route}, func(r *rig) {
				r.client.headers(1, false, kv...)
				r.up.want("request", test.up)
				r.up.headers(3, false, ":status", "200", "grpc-encoding", "gzip", "content-length", "5")
				r.client.want("response", test.down)
			})
		})
	}
}

func TestTrailersOfARequest(t *testing.T) {
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: route}, func(r *rig) {
				r.client.call(1, "/p")
				r.client.data(1, false, framed([]byte("q")))
				r.client.headers(1, true, "checksum", "x")
				got := r.up.got()
				if len(got) < 3 || got[len(got)-1] != "HEADERS 3 checksum=x end" {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

// TestLengthOfARequest: a body that is not as long as the request says ends the
// stream with an error, on both legs, when that is seen.
func TestLengthOfARequest(t *testing.T) {
	for name, test := range map[string]struct {
		lengths []string
		send    func(p *peer)
		wrong   bool
	}{
		"as long":      {[]string{"5"}, func(p *peer) { p.data(1, false, []byte("123")); p.data(1, true, []byte("45")) }, false},
		"padded":       {[]string{"1"}, func(p *peer) { p.check(p.fr.WriteDataPadded(1, true, []byte("1"), make([]byte, 9))) }, false},
		"the same":     {[]string{"1", "1"}, func(p *peer) { p.data(1, true, []byte("1")) }, false},
		"trailers":     {[]string{"1"}, func(p *peer) { p.data(1, false, []byte("1")); p.headers(1, true, "a", "b") }, false},
		"too long":     {[]string{"4"}, func(p *peer) { p.data(1, false, []byte("123")); p.data(1, false, []byte("45")) }, true},
		"too short":    {[]string{"4"}, func(p *peer) { p.data(1, true, []byte("123")) }, true},
		"cut off":      {[]string{"4"}, func(p *peer) { p.data(1, false, []byte("1")); p.headers(1, true, "a", "b") }, true},
		"not a number": {[]string{"+1"}, func(p *peer) { p.data(1, true, []byte("1")) }, true},
		"two":          {[]string{"1", "2"}, func(p *peer) { p.data(1, true, []byte("1")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				kv := []string{":method", "POST", ":scheme", "http", ":path", "/p"}
				for _, n := range test.lengths {
					kv = append(kv, "content-length", n)
				}
				r.client.headers(1, false, kv...)
				test.send(r.client)
				r.up.got()
				want := []string{}
				if test.wrong {
					want = append(want, "RST_STREAM 1 PROTOCOL_ERROR")
				}
				r.client.want("client", want...)
				if got := r.streams() == 0; got != test.wrong {
					t.Errorf("the stream ended: %v", got)
				}
			})
		})
	}
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.headers(1, true, ":method", "POST", ":scheme", "http", ":path", "/p", "content-length", "1")
		r.client.headers(3, true, ":method", "POST", ":scheme", "http", ":path", "/p", "content-length", "0")
		r.client.want("no body", "RST_STREAM 1 PROTOCOL_ERROR")
		r.up.want("the good one alone", "HEADERS 5 "+":method=POST :scheme=http :path=/p content-length=0 end")
	})
}

func TestTrailersThatAreNotWellFormed(t *testing.T) {
	for _, kv := range [][]string{{":method", "GET"}, {":status", "200"}, {"Capital", "x"}, {"connection", "close"}} {
		pipes(t, Config{}, &testSession{}, func(r *rig) {
			r.client.call(1, "/p")
			r.client.headers(1, true, kv...)
			r.client.want(kv[0], "RST_STREAM 1 PROTOCOL_ERROR")
			r.up.want("upstream", "HEADERS 3 "+pHeaders, "RST_STREAM 3 PROTOCOL_ERROR")
		})
	}
}

// TestTableSizeOfThePeer has the upstream allow no table at all: a block that
// used one could not be decoded by it.
func TestTableSizeOfThePeer(t *testing.T) {
	pipes(t, Config{}, &testSession{}, func(r *rig) {
		r.client.call(1, "/p", "a", "b")
		r.up.want("with a table", "HEADERS 3 "+pHeaders+" a=b")
		r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}))
		synctest.Wait()
		for id := uint32(3); id < 9; id += 2 {
			r.client.call(id, "/p", "a", "b")
			r.up.want("without", fmt.Sprintf("HEADERS %d %s a=b", id+2, pHeaders))
		}
	})
}

func TestBlockThatCannotBeDecoded(t *testing.T) {
	for name, block := range map[string][]byte{"no such index": {0xff, 0xff, 0x7f}, "cut off": {0x40, 0x05, 'a'}} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				r.client.check(r.client.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}))
				r.client.want("end", "GOAWAY 0 COMPRESSION_ERROR")
			})
		})
	}
}
