package relay

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// TestFramesOutOfPlace sends each peer's frames where RFC 9113 does not have
// them. Stream 5, as either
// of them counts, was open and is closed.
func TestFramesOutOfPlace(t *testing.T) {
	raw := func(typ http2.FrameType, flags http2.Flags, id uint32, payload string) func(*peer) {
		return func(p *peer) { p.check(p.fr.WriteRawFrame(typ, flags, id, []byte(payload))) }
	}
	only := map[string]string{ // what is judged by its sender
		"DATA on a closed stream": "upstream", "a DATA frame without a byte": "upstream", "DATA on one it has closed": "client",
	}
	four, five, eight := "\x00\x00\x00\x01", "\x00\x00\x00\x09\x01", "12345678"
	for name, test := range map[string]struct {
		send func(*peer)
		want []string // what the sender gets; nil: the frame is ignored
	}{
		"DATA on 0":                   {raw(http2.FrameData, 0, 0, "x"), []string{"GOAWAY PROTOCOL_ERROR"}},
		"DATA on an idle stream":      {raw(http2.FrameData, 0, 99, "x"), []string{"GOAWAY PROTOCOL_ERROR"}},
		"DATA on a closed stream":     {raw(http2.FrameData, 0, 5, "x"), nil},
		"DATA on one it has closed":   {raw(http2.FrameData, 0, 5, "x"), []string{"RST_STREAM 5 STREAM_CLOSED"}},
		"too much padding":            {raw(http2.FrameData, http2.FlagDataPadded, 5, "\x02x"), []string{"GOAWAY PROTOCOL_ERROR"}},
		"no room for padding":         {raw(http2.FrameData, http2.FlagDataPadded, 5, ""), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"a frame too large":           {raw(http2.FrameData, 0, 5, string(make([]byte, maxFramePayload+1))), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"HEADERS on 0":                {raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, ""), []string{"GOAWAY PROTOCOL_ERROR"}},
		"CONTINUATION alone":          {raw(http2.FrameContinuation, 0, 5, ""), []string{"GOAWAY PROTOCOL_ERROR"}},
		"HEADERS cut by PING":         {both(raw(http2.FrameHeaders, 0, 7, ""), raw(http2.FramePing, 0, 0, eight)), []string{"GOAWAY PROTOCOL_ERROR"}},
		"HEADERS go on elsewhere":     {both(raw(http2.FrameHeaders, 0, 7, ""), raw(http2.FrameContinuation, 0, 9, "")), []string{"GOAWAY PROTOCOL_ERROR"}},
		"PRIORITY":                    {raw(http2.FramePriority, 0, 5, five), nil},
		"PRIORITY on an idle stream":  {raw(http2.FramePriority, 0, 99, five), nil},
		"PRIORITY on 0":               {raw(http2.FramePriority, 0, 0, five), []string{"GOAWAY PROTOCOL_ERROR"}},
		"PRIORITY too short":          {raw(http2.FramePriority, 0, 5, four), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"depends on itself":           {raw(http2.FramePriority, 0, 9, five), []string{"GOAWAY PROTOCOL_ERROR"}},
		"RST_STREAM on 0":             {raw(http2.FrameRSTStream, 0, 0, four), []string{"GOAWAY PROTOCOL_ERROR"}},
		"RST_STREAM on idle":          {raw(http2.FrameRSTStream, 0, 99, four), []string{"GOAWAY PROTOCOL_ERROR"}},
		"RST_STREAM on closed":        {raw(http2.FrameRSTStream, 0, 5, four), nil},
		"RST_STREAM too long":         {raw(http2.FrameRSTStream, 0, 5, five), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"SETTINGS on a stream":        {raw(http2.FrameSettings, 0, 5, ""), []string{"GOAWAY PROTOCOL_ERROR"}},
		"SETTINGS of a wrong size":    {raw(http2.FrameSettings, 0, 0, four), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"an ACK with settings":        {raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "123456"), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"a window out of range":       {raw(http2.FrameSettings, 0, 0, "\x00\x04\xff\xff\xff\xff"), []string{"GOAWAY FLOW_CONTROL_ERROR"}},
		"a frame size out of range":   {raw(http2.FrameSettings, 0, 0, "\x00\x05\x00\x00\x00\x01"), []string{"GOAWAY PROTOCOL_ERROR"}},
		"PUSH_PROMISE":                {raw(http2.FramePushPromise, 0, 5, four), []string{"GOAWAY PROTOCOL_ERROR"}},
		"PING on a stream":            {raw(http2.FramePing, 0, 5, eight), []string{"GOAWAY PROTOCOL_ERROR"}},
		"PING too short":              {raw(http2.FramePing, 0, 0, four), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"PING":                        {raw(http2.FramePing, 0, 0, eight), []string{`PING "12345678" ack`}},
		"a PING's answer":             {raw(http2.FramePing, http2.FlagPingAck, 0, eight), nil},
		"GOAWAY on a stream":          {raw(http2.FrameGoAway, 0, 5, eight), []string{"GOAWAY PROTOCOL_ERROR"}},
		"GOAWAY too short":            {raw(http2.FrameGoAway, 0, 0, four), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"WINDOW_UPDATE of 0":          {raw(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x00"), []string{"GOAWAY PROTOCOL_ERROR"}},
		"WINDOW_UPDATE beyond":        {raw(http2.FrameWindowUpdate, 0, 0, "\x7f\xff\xff\xff"), []string{"GOAWAY FLOW_CONTROL_ERROR"}},
		"WINDOW_UPDATE on idle":       {raw(http2.FrameWindowUpdate, 0, 99, four), []string{"GOAWAY PROTOCOL_ERROR"}},
		"WINDOW_UPDATE on closed":     {raw(http2.FrameWindowUpdate, 0, 5, four), nil},
		"WINDOW_UPDATE too long":      {raw(http2.FrameWindowUpdate, 0, 5, five), []string{"GOAWAY FRAME_SIZE_ERROR"}},
		"an unknown frame":            {raw(0xfe, 0xff, 77, "anything"), nil},
		"an unknown frame, even id":   {raw(0xfe, 0, 2, ""), nil},
		"a DATA frame without a byte": {raw(http2.FrameData, 0, 5, ""), nil},
	} {
		for _, from := range []string{"client", "upstream"} {
			if only[name] != "" && only[name] != from {
				continue
			}
			t.Run(name+" from the "+from, func(t *testing.T) {
				pipes(t, Config{}, &testSession{}, func(r *rig) {
					r.client.call(1, "/p")
					for id := uint32(3); id <= 5; id += 2 {
						r.client.call(id, "/p")
						r.client.check(r.client.fr.WriteRSTStream(id, http2.ErrCodeCancel))
					}
					r.client.got()
					r.up.got()
					sender, other := r.client, r.up
					if from == "upstream" {
						sender, other = r.up, r.client
					}
					test.send(sender)
					var got []string
					for _, e := range sender.all() {
						if e.typ == http2.FrameGoAway {
							got = append(got, "GOAWAY "+e.code.String())
						} else {
							got = append(got, e.String())
						}
					}
					if fmt.Sprint(got) != fmt.Sprint(test.want) {
						t.Errorf("got %q, want %q", got, test.want)
					}
					if test.want == nil {
						other.want("nothing passes")
						sender.check(sender.fr.WritePing(false, [8]byte{1}))
						sender.want("it lives", `PING "\x01\x00\x00\x00\x00\x00\x00\x00" ack`)
					}
				})
			})
		}
	}
}

func both(a, b func(*peer)) func(*peer) { return func(p *peer) { a(p); b(p) } }

// TestStreamErrors are those that end one stream only.
func TestStreamErrors(t *testing.T) {
	for name, test := range map[string]struct {
		send       func(r *rig)
		client, up []string
	}{
		"a stream's window of 0": {func(r *rig) {
			r.client.check(r.client.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)))
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR"}, []string{"RST_STREAM 3 PROTOCOL_ERROR"}},
		"a stream's window beyond":  {func(r *rig) { r.up.check(r.up.fr.WriteWindowUpdate(3, maxWindow)) }, []string{"RST_STREAM 1 FLOW_CONTROL_ERROR"}, []string{"RST_STREAM 3 FLOW_CONTROL_ERROR"}},
		"DATA after the end":        {func(r *rig) { r.client.data(1, true, nil); r.up.got(); r.client.data(1, true, nil) }, []string{"RST_STREAM 1 STREAM_CLOSED"}, []string{"RST_STREAM 3 STREAM_CLOSED"}},
		"HEADERS after the end":     {func(r *rig) { r.client.data(1, true, nil); r.up.got(); r.client.headers(1, true, "a", "b") }, []string{"RST_STREAM 1 STREAM_CLOSED"}, []string{"RST_STREAM 3 STREAM_CLOSED"}},
		"trailers without an end":   {func(r *rig) { r.client.headers(1, false, "a", "b") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}, []string{"RST_STREAM 3 PROTOCOL_ERROR"}},
		"DATA before HEADERS":       {func(r *rig) { r.up.data(3, false, []byte("x")) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}, []string{"RST_STREAM 3 PROTOCOL_ERROR"}},
		"informational with an end": {func(r *rig) { r.up.headers(3, true, ":status", "100") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}, []string{"RST_STREAM 3 PROTOCOL_ERROR"}},
		"a window of 0 on a stream that was": {func(r *rig) {
			r.client.check(r.client.fr.WriteRSTStream(1, 8))
			r.up.got()
			r.client.check(r.client.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)))
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR"}, []string{}},
		"more than the window": {func(r *rig) {
			r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
			r.client.data(1, false, make([]byte, clientWindow))
			r.client.data(1, false, make([]byte, 1))
		}, []string{"RST_STREAM 1 FLOW_CONTROL_ERROR"}, []string{"RST_STREAM 3 FLOW_CONTROL_ERROR"}},
		"a number too high for the upstream": {func(r *rig) { r.client.call(maxStreamID, "/p") }, []string{"RST_STREAM 2147483647 REFUSED_STREAM"}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				r.client.call(1, "/p")
				r.up.want("request", "HEADERS 3 "+pHeaders)
				test.send(r)
				r.client.want("client", test.client...)
				r.up.want("upstream", test.up...)
			})
		})
	}
}

func TestConnectionErrors(t *testing.T) {
	t.Run("an even stream", func(t *testing.T) {
		pipes(t, Config{}, &testSession{}, func(r *rig) {
			r.client.call(1, "/p")
			r.client.call(2, "/p")
			r.client.want("end", "GOAWAY 1 PROTOCOL_ERROR")
			<-r.ran
		})
	})
	t.Run("a stream that was", func(t *testing.T) {
		for name, end := range map[string]func(*rig){
			"reset":   func(r *rig) { r.client.check(r.client.fr.WriteRSTStream(1, 8)) },
			"ended":   func(r *rig) { r.client.data(1, true, nil); r.up.headers(3, true, ":status", "200") },
			"skipped": func(r *rig) { r.client.call(3, "/p"); r.client.call(7, "/p") },
		} {
			pipes(t, Config{}, &testSession{}, func(r *rig) {
				r.client.call(1, "/p")
				end(r)
				r.client.got()
				r.client.call(map[bool]uint32{false: 1, true: 5}[name == "skipped"], "/p")
				got := r.client.got()
				if len(got) != 1 || !strings.HasSuffix(got[0], "STREAM_CLOSED") || !strings.HasPrefix(got[0], "GOAWAY") {
					t.Errorf("%s: got %v", name, got)
				}
				<-r.ran
			})
		}
	})
	t.Run("more than the connection's window", func(t *testing.T) {
		pipes(t, Config{QueueLimit: 1}, &testSession{}, func(r *rig) {
			r.up.check(r.up.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
			r.client.inStep = false
			for id := uint32(1); id <= 2*(connWindow/clientWindow)+1; id += 2 {
				r.client.call(id, "/p")
				r.client.data(id, false, make([]byte, clientWindow))
			}
			got := r.client.got()
			if len(got) != 1 || got[0] != "GOAWAY 257 FLOW_CONTROL_ERROR" {
				t.Errorf("got %v", got)
			}
		})
	})
	t.Run("the first frame is not SETTINGS", func(t *testing.T) {
		pipesWithoutHello(t, func(r *rig) {
			r.up.check(r.up.fr.WriteSettings())
			r.client.check(r.client.fr.WritePing(false, [8]byte{}))
			r.client.want("end", "GOAWAY 0 PROTOCOL_ERROR")
		})
	})
}

// TestFramesThatAreDropped: padding, priority and unknown frames do not pass.
func TestFramesThatAreDropped(t *testing.T) {
	for name, route := range map[string]func(string) Route{"raw": nil, "codec": rewritten} {
		t.Run(name, func(t *testing.T) {
			pipes(t, Config{}, &testSession{route: route}, func(r *rig) {
				r.client.call(1, "/p")
				r.client.check(r.client.fr.WriteDataPadded(1, true, framed([]byte("q")), make([]byte, 255)))
				r.up.headers(3, false, ":status", "200")
				r.up.check(r.up.fr.WriteDataPadded(3, false, framed([]byte("a")), make([]byte, 99)))
				r.up.headers(3, true, "grpc-status", "0")
				r.up.want("request", "HEADERS 3 "+pHeaders, `DATA 3 "\x00\x00\x00\x00\x01q" end`)
				r.client.want("answer", "HEADERS 1 :status=200", `DATA 1 "\x00\x00\x00\x00\x01a"`, "HEADERS 1 grpc-status=0 end")
			})
		})
	}
}
