package difftest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// httpSide is one of two servers, asked over HTTP/1.1.
type httpSide struct {
	client *http.Client
	subs   map[string]string // of values that no two clusters have alike
}

// newHTTPSide connects to a unix socket, with HTTP/2 by prior knowledge if set.
func newHTTPSide(t *testing.T, socket string, two bool) *httpSide {
	t.Helper()
	u, err := url.Parse(socket)
	must(t, err)
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
	}
	s := &httpSide{subs: map[string]string{}}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols:   new(http.Protocols),
	}
	transport.Protocols.SetUnencryptedHTTP2(two)
	transport.Protocols.SetHTTP1(!two)
	s.client = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

// httpAnswer is what is compared.
type httpAnswer struct {
	Status int
	Header http.Header
	Body   any
}

// ask makes a request. header is pairs of names and values.
func (s *httpSide) ask(t *testing.T, method, path, body string, header ...string) httpAnswer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://etcd"+path, strings.NewReader(body))
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], s.replace(header[i+1]))
	}
	answer, err := s.client.Do(r)
	must(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	must(t, err)
	a := httpAnswer{Status: answer.StatusCode, Header: answer.Header, Body: string(b)}
	var parsed any
	if json.Unmarshal(b, &parsed) == nil {
		a.Body = level(parsed)
		if m, ok := parsed.(map[string]any); ok {
			if token, ok := m["token"].(string); ok {
				s.subs["$TOKEN"] = token
				m["token"] = "a token"
			}
		}
	}
	for _, name := range []string{"Date", "Content-Length", "Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} {
		a.Header.Del(name)
	}
	return a
}

func (s *httpSide) replace(text string) string {
	for from, to := range s.subs {
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}

// level takes out of JSON what no two clusters have alike.
func level(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v["grantedTTL"] != nil && v["TTL"] != "-1" { // the seconds that are left, not those of a lease that is gone
			v["TTL"] = "some"
		}
		for name, inner := range v {
			switch name {
			case "cluster_id", "member_id", "raft_term", "ID", "leader", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse",
				"peerURLs", "clientURLs", "hash", "memberID", "storageVersion", "storage":
				v[name] = "some"
			case "key": // of a lock: the lease in it is random
				if text, ok := inner.(string); ok && strings.HasPrefix(text, b64("locks/x/")[:8]) {
					v[name] = "some"
				}
			default:
				v[name] = level(inner)
			}
		}
	case []any:
		for i := range v {
			v[i] = level(v[i])
		}
	}
	return v
}

// b64 is a byte field in JSON.
func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// httpRequests are made in order on both sides.
var httpRequests = []struct{ method, path, body string }{
	{"POST", "/v3/kv/put", `{"key":"` + b64(sealed+"a") + `","value":"` + b64("one") + `"}`},
	{"POST", "/v3/kv/put", `{"key":"` + b64(sealed+"a") + `","value":"` + b64("two") + `","prev_kv":true}`},
	{"POST", "/v3/kv/put", `{"key":"` + b64("/other") + `","value":"` + b64("plain") + `"}`},
	{"POST", "/v3/kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/kv/range", `{"key":"` + b64("/") + `","range_end":"` + b64("0") + `","sort_order":"DESCEND","sort_target":"MOD"}`},
	{"POST", "/v3beta/kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3alpha/kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/kv/txn", `{"compare":[{"key":"` + b64(sealed+"a") + `","target":"VERSION","version":"2"}],"success":[{"request_put":{"key":"` + b64(sealed+"b") + `","value":"` + b64("three") + `"}},{"request_range":{"key":"` + b64(sealed) + `","range_end":"` + b64("/registry/secrets0") + `"}}],"failure":[{"request_range":{"key":"YQ=="}}]}`},
	{"POST", "/v3/kv/deleterange", `{"key":"` + b64(sealed+"b") + `","prev_kv":true}`},
	{"POST", "/v3/kv/range", `{"key":""}`},
	{"POST", "/v3/kv/range", `{"key":"not base64!"}`},
	{"POST", "/v3/kv/range", `{"key":`},
	{"POST", "/v3/kv/range", `[]`},
	{"POST", "/v3/kv/range", ``},
	{"POST", "/v3/kv/range", `{"key":"` + b64(sealed+"a") + `","unknown":1,"revision":"99"}`},
	{"POST", "/v3/kv/compaction", `{"revision":"3"}`},
	{"POST", "/v3/kv/range", `{"key":"` + b64(sealed+"a") + `","revision":"2"}`},
	{"GET", "/v3/kv/range", ``},
	{"PUT", "/v3/kv/put", `{"key":"YQ==","value":"YQ=="}`},
	{"DELETE", "/v3/kv/deleterange", `{"key":"YQ=="}`},
	{"HEAD", "/v3/kv/range", ``},
	{"OPTIONS", "/v3/kv/range", ``},
	{"POST", "/v3/kv/%72ange", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "//v3/kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3//kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/./kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/KV/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/kv/range/", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/kv/range?key=x", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/V3/kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3", ``},
	{"POST", "/v3/nothing", `{}`},
	{"POST", "/etcdserverpb.KV/Range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/lease/grant", `{"TTL":"100","ID":"77"}`},
	{"POST", "/v3/kv/put", `{"key":"` + b64(sealed+"l") + `","value":"` + b64("leased") + `","lease":"77"}`},
	{"POST", "/v3/lease/timetolive", `{"ID":"77","keys":true}`},
	{"POST", "/v3/kv/lease/timetolive", `{"ID":"78"}`},
	{"POST", "/v3/lease/keepalive", `{"ID":"77"}`},
	{"POST", "/v3/lease/leases", `{}`},
	{"POST", "/v3/lease/revoke", `{"ID":"77"}`},
	{"POST", "/v3/lease/revoke", `{"ID":"77"}`},
	{"POST", "/v3/cluster/member/list", `{}`},
	{"POST", "/v3/cluster/member/promote", `{"ID":"1"}`},
	{"POST", "/v3/maintenance/status", `{}`},
	{"POST", "/v3/maintenance/alarm", `{"action":"GET"}`},
	{"POST", "/v3/maintenance/hash", `{}`},
	{"POST", "/v3/maintenance/defragment", `{}`},
	{"POST", "/v3/maintenance/transfer-leadership", `{}`},
	{"POST", "/v3/lock/lock", `{"name":"` + b64("locks/x") + `"}`},
	{"POST", "/v3/election/leader", `{"name":"` + b64("nobody") + `"}`},
	{"POST", "/v3/kv/put", `{"key":"YmlnCg==","value":"` + strings.Repeat("QUJD", 1<<19) + `"}`},
	{"POST", "/v3/kv/put", `{"key":"YmlnCg==","value":"` + strings.Repeat("QUJD", 1<<20) + `"}`},
	{"GET", "/version", ``},
	{"POST", "/version", ``},
	{"HEAD", "/version", ``},
	{"GET", "/version/", ``},
	{"GET", "//version", ``},
	{"GET", "/health", ``},
	{"GET", "/health?serializable=true&exclude=NOSPACE", ``},
	{"POST", "/health", ``},
	{"GET", "/livez", ``},
	{"GET", "/livez?exclude=serializable_read", ``},
	{"GET", "/livez/serializable_read?verbose", ``},
	{"GET", "/livez/nothing", ``},
	{"PUT", "/livez", ``},
	{"GET", "/readyz/data_corruption", ``},
	{"GET", "/readyz/linearizable_read", ``},
	{"GET", "/readyz/non_learner", ``},
	{"GET", "/readyz", ``},
	{"GET", "/nothing", ``},
	{"GET", "/", ``},
	{"GET", "/v2/keys", ``},
	{"GET", "/members", ``},
	{"POST", "/v3/auth/status", `{}`},
	{"POST", "/v3/auth/user/add", `{"name":"root","password":"p"}`},
	{"POST", "/v3/auth/user/add", `{"name":"root","password":"p"}`},
	{"POST", "/v3/auth/user/grant", `{"user":"root","role":"root"}`},
	{"POST", "/v3/auth/enable", `{}`},
	{"POST", "/v3/kv/range", `{"key":"` + b64(sealed+"a") + `"}`},
	{"POST", "/v3/auth/authenticate", `{"name":"root","password":"wrong"}`},
	{"POST", "/v3/auth/authenticate", `{"name":"root","password":"p"}`},
}

// TestHTTPEqualsEtcd asks a plain etcd and etcdseal the same over HTTP/1.1.
func TestHTTPEqualsEtcd(t *testing.T) {
	behind := startEtcd(t)
	proxied := startEtcdseal(t, behind)
	reference, subject := newHTTPSide(t, startEtcd(t), false), newHTTPSide(t, proxied, false)
	compare := func(method, path, body string, header ...string) {
		t.Helper()
		want, got := reference.ask(t, method, path, body, header...), subject.ask(t, method, path, body, header...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s %.200s %q (-etcd +etcdseal):\n%.3000s", method, path, body, header, diff)
		}
	}
	for _, r := range httpRequests {
		compare(r.method, r.path, r.body)
	}
	get := `{"key":"` + b64(sealed+"a") + `"}`
	for _, header := range []string{"Authorization", "Grpc-Metadata-Token", "Grpc-Metadata-Authorization"} {
		compare("POST", "/v3/kv/range", get, header, "$TOKEN")
		compare("POST", "/v3/kv/range", get, header, "wrong")
		compare("POST", "/v3/kv/range", get, header, "Bearer $TOKEN")
	}
	compare("POST", "/v3/kv/range", get, "Authorization", "$TOKEN", "Grpc-Timeout", "1n")
	compare("POST", "/v3/kv/range", get, "Authorization", "$TOKEN", "Content-Type", "text/plain")
	compare("POST", "/v3/kv/range", get, "Authorization", "$TOKEN", "Content-Type", "application/grpc")
	compare("POST", "/v3/kv/range", get, "Authorization", "$TOKEN", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Http2-Settings", "AAMAAABkAAQAAP__")
	compare("POST", "/v3/auth/disable", `{}`, "Authorization", "$TOKEN")
	compare("GET", "/health", "")

	all, err := pb.NewKVClient(dial(t, behind)).Range(t.Context(), &pb.RangeRequest{Key: []byte(sealed + "a")})
	must(t, err)
	if len(all.Kvs) != 1 || !envelope.Is(all.Kvs[0].Value) {
		t.Errorf("etcd holds %v", all.Kvs)
	}
	metrics := subject.ask(t, "GET", "/metrics", "")
	if text := fmt.Sprint(metrics.Body); metrics.Status != 200 || !strings.Contains(text, "etcd_server_has_leader 1") {
		t.Errorf("/metrics: %d %.200s", metrics.Status, text)
	}
	if metrics := subject.ask(t, "HEAD", "/metrics", ""); metrics.Status != 200 || metrics.Body != "" {
		t.Errorf("HEAD /metrics: %v", metrics)
	}
}

// TestHTTP2WithoutGRPC asks etcdseal over HTTP/2 what it answers over HTTP/1.1. A plain
// etcd answers such requests only under TLS.
func TestHTTP2WithoutGRPC(t *testing.T) {
	reference := newHTTPSide(t, startEtcdseal(t, startEtcd(t)), false)
	subject := newHTTPSide(t, startEtcdseal(t, startEtcd(t)), true)
	for _, r := range httpRequests {
		want, got := reference.ask(t, r.method, r.path, r.body), subject.ask(t, r.method, r.path, r.body)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s %.200s (-HTTP/1.1 +HTTP/2):\n%.3000s", r.method, r.path, r.body, diff)
		}
	}
}

// TestHTTPWatch streams a watch while values are written, over both versions.
func TestHTTPWatch(t *testing.T) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2=%v", two), func(t *testing.T) {
			var sides []*httpSide
			plain, proxied := startEtcd(t), startEtcdseal(t, startEtcd(t))
			sides = append(sides, newHTTPSide(t, plain, false), newHTTPSide(t, proxied, two))
			var lines [2][]any
			for i, s := range sides {
				for range 2 { // the streams end with their clients
					lines[i] = append(lines[i], s.watch(t)...)
				}
			}
			if diff := cmp.Diff(lines[0], lines[1]); diff != "" {
				t.Errorf("(-etcd +etcdseal):\n%s", diff)
			}
			if text := fmt.Sprint(lines[1]); !strings.Contains(text, b64("watched")) {
				t.Errorf("the watch shows %s", text)
			}
		})
	}
}

// watch returns the lines of a watch that sees one put.
func (s *httpSide) watch(t *testing.T) []any {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// net/http's server waits for the end of a request's body before it answers.
	body := `{"create_request":{"key":"` + b64(sealed+"w") + `","prev_kv":true,"watch_id":"9"}}`
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://etcd/v3/watch", strings.NewReader(body))
	must(t, err)
	answer, err := s.client.Do(r)
	must(t, err)
	defer answer.Body.Close()
	scanner := bufio.NewScanner(answer.Body)
	var lines []any
	next := func() {
		if !scanner.Scan() {
			t.Fatalf("the watch has ended: %v", scanner.Err())
		}
		var v any
		must(t, json.NewDecoder(bytes.NewReader(scanner.Bytes())).Decode(&v))
		lines = append(lines, level(v))
	}
	next()
	if a := s.ask(t, "POST", "/v3/kv/put", `{"key":"`+b64(sealed+"w")+`","value":"`+b64("watched")+`"}`); a.Status != 200 {
		t.Fatalf("putting: %v", a)
	}
	next()
	return append(lines, answer.StatusCode, answer.Header.Get("Content-Type"))
}

// TestHTTP2Watch speaks and hears in turns, which HTTP/2 can.
func TestHTTP2Watch(t *testing.T) {
	s := newHTTPSide(t, startEtcdseal(t, startEtcd(t)), true)
	body, send := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://etcd/v3/watch", body)
	must(t, err)
	go func() { _, _ = io.WriteString(send, `{"create_request":{"key":"`+b64(sealed)+`"}}`) }() // until the transport has read it
	answer, err := s.client.Do(r)
	must(t, err)
	defer answer.Body.Close()
	scanner := bufio.NewScanner(answer.Body)
	for _, step := range []struct{ send, want string }{
		{"", `"created":true`}, {`{"progress_request":{}}`, `"watch_id":"-1"`}, {`{"cancel_request":{}}`, `"canceled":true`},
	} {
		_, err := io.WriteString(send, step.send)
		must(t, err)
		if !scanner.Scan() || !strings.Contains(strings.ReplaceAll(scanner.Text(), " ", ""), step.want) {
			t.Errorf("after %q: %q, want %s (%v)", step.send, scanner.Text(), step.want, scanner.Err())
		}
	}
	must(t, send.Close())
}

// TestWebsocketEqualsEtcd watches over a websocket, with two watches on one stream, and
// makes what etcd refuses.
func TestWebsocketEqualsEtcd(t *testing.T) {
	var got [2][]any
	for i, socket := range []string{startEtcd(t), startEtcdseal(t, startEtcd(t))} {
		s := newHTTPSide(t, socket, false)
		u, err := url.Parse(socket)
		must(t, err)
		dialer := websocket.Dialer{
			Subprotocols: []string{"Bearer", "token"},
			NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
			},
		}
		open := func(path string) *websocket.Conn {
			conn, answer, err := dialer.DialContext(t.Context(), "ws://etcd"+path, nil)
			must(t, err)
			t.Cleanup(func() { closeConn(conn) })
			must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
			got[i] = append(got[i], answer.StatusCode, answer.Header.Get("Sec-Websocket-Protocol"))
			return conn
		}
		step := func(conn *websocket.Conn, send string) {
			if send != "" {
				must(t, conn.WriteMessage(websocket.TextMessage, []byte(send)))
			}
			kind, message, err := conn.ReadMessage()
			must(t, err)
			var v any
			must(t, json.Unmarshal(message, &v))
			got[i] = append(got[i], kind, level(v))
		}
		conn := open("/v3/watch")
		step(conn, `{"create_request":{"key":"`+b64(sealed+"w")+`","prev_kv":true}}`)
		step(conn, `{"create_request":{"key":"`+b64("/other")+`"}}`)
		for range 2 {
			s.ask(t, "POST", "/v3/kv/put", `{"key":"`+b64(sealed+"w")+`","value":"`+b64("watched")+`"}`)
			step(conn, "")
		}
		step(conn, `{"progress_request":{}}`)
		step(conn, `{"cancel_request":{"watch_id":"1"}}`)
		step(open("/v3/lease/keepalive"), `{"ID":"99"}`)
		step(open("/v3/nothing"), "")
		step(open("/v3/kv/range"), `{"key":5}`)
	}
	if diff := cmp.Diff(got[0], got[1]); diff != "" {
		t.Errorf("(-etcd +etcdseal):\n%s", diff)
	}
	if text := fmt.Sprint(got[1]); strings.Count(text, b64("watched")) != 3 {
		t.Errorf("the watch shows %s", text)
	}
}
