package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/etcdseal/etcdseal/proxy/certs/certstest"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kind is a way to run an etcd.
type kind struct {
	secure   bool // with TLS
	onlyGRPC bool // --listen-client-http-urls names another port
}

// start runs an etcd and returns a handler in front of it, which asks it directly.
func start(t *testing.T, k kind) *Handler {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.UnsafeNoFsync = t.TempDir(), "fatal", true
	u, other := url.URL{Scheme: "http", Host: "127.0.0.1:0"}, url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	peer := u
	var files upstream.TLS
	if k.secure {
		ca, dir := certstest.NewCA(t, "ca"), t.TempDir()
		files.CAFile = ca.Write(t, dir)
		cert, key := ca.Server(t).Write(t, dir, "etcd")
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = cert, key
		u.Scheme, other.Scheme = "https", "https"
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
	if k.onlyGRPC {
		cfg.ListenClientHttpUrls = []url.URL{{Scheme: other.Scheme, Host: freePort(t)}}
	}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	must(t, err)
	t.Cleanup(etcd.Close)
	<-etcd.Server.ReadyNotify()
	address := etcd.Clients[0].Addr().String()
	for _, c := range etcd.Clients {
		if len(cfg.ListenClientHttpUrls) == 0 || c.Addr().String() != cfg.ListenClientHttpUrls[0].Host {
			address = c.Addr().String()
		}
	}
	return dialed(t, u.Scheme+"://"+address, files)
}

// freePort is an address that nobody listens on.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// dialed returns a handler in front of an endpoint.
func dialed(t *testing.T, endpoint string, files upstream.TLS) *Handler {
	t.Helper()
	pool, err := upstream.New(upstream.Config{Endpoints: []string{endpoint}, TLS: files})
	must(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	u, err := url.Parse(endpoint)
	must(t, err)
	conn, err := grpc.NewClient(u.Host, grpc.WithTransportCredentials(pool.Credentials()))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return New(Config{
		Proxy: conn, TLS: u.Scheme == "https", MaxRequest: 2 << 20, Token: pool.Token,
		Dial: func(ctx context.Context) (net.Conn, string, func(), error) {
			c, err := pool.Dial(ctx)
			if err != nil {
				return nil, "", nil, err
			}
			return c.Conn, u.Host, func() { _ = c.Close() }, nil
		},
	})
}

// ask makes a request of a handler.
func ask(t *testing.T, h http.Handler, method, target, body string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, answer *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(answer.Body)
	must(t, err)
	return string(b)
}

// TestEtcdOfItself asks etcds of every kind for what they say of themselves.
func TestEtcdOfItself(t *testing.T) {
	for _, k := range []kind{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("%+v", k), func(t *testing.T) {
			h := start(t, k)
			answer := ask(t, h, "GET", "/version", "")
			var v struct{ Etcdserver, Etcdcluster string }
			if err := json.NewDecoder(answer.Body).Decode(&v); err != nil || v.Etcdserver != "3.7.3" || v.Etcdcluster == "" || answer.Header.Get("Content-Type") != "application/json" {
				t.Errorf("/version: %v %+v %v", answer, v, err)
			}
			for _, path := range []string{"/health", "/health?serializable=true"} {
				answer = ask(t, h, "GET", path, "")
				if got := text(t, answer); answer.StatusCode != 200 || got != `{"health":"true","reason":""}` {
					t.Errorf("%s: %d %s", path, answer.StatusCode, got)
				}
			}
			want := map[bool]int{false: 200, true: 501}[k.onlyGRPC]
			for _, path := range []string{"/metrics", "/livez", "/readyz", "/readyz/linearizable_read?verbose"} {
				answer = ask(t, h, "GET", path, "")
				if got := text(t, answer); answer.StatusCode != want || k.onlyGRPC != strings.HasPrefix(got, "etcdseal: ") {
					t.Errorf("%s: %d %.200s", path, answer.StatusCode, got)
				}
			}
			alarm(t, h)
			answer = ask(t, h, "GET", "/health", "")
			if got := strings.TrimSpace(text(t, answer)); answer.StatusCode != 503 || got != `{"health":"false","reason":"ALARM NOSPACE"}` {
				t.Errorf("/health under an alarm: %d %s", answer.StatusCode, got)
			}
			answer = ask(t, h, "GET", "/health?exclude=NOSPACE", "")
			if answer.StatusCode != 200 {
				t.Errorf("/health but for that alarm: %d %s", answer.StatusCode, text(t, answer))
			}
		})
	}
}

// alarm raises one through the JSON API.
func alarm(t *testing.T, h *Handler) {
	t.Helper()
	status := text(t, ask(t, h, "POST", "/v3/cluster/member/list", "{}"))
	_, after, _ := strings.Cut(status, `"ID":`)
	id, _, _ := strings.Cut(strings.TrimLeft(after, ` "`), `"`)
	answer := ask(t, h, "POST", "/v3/maintenance/alarm", `{"action":"ACTIVATE","memberID":"`+id+`","alarm":"NOSPACE"}`)
	if answer.StatusCode != 200 {
		t.Fatalf("raising an alarm: %s", text(t, answer))
	}
}

// TestUnreachableEtcd answers all the same.
func TestUnreachableEtcd(t *testing.T) {
	h := dialed(t, "http://127.0.0.1:1", upstream.TLS{}) // on which no system listens
	answer := ask(t, h, "GET", "/health", "")
	var v struct{ Health, Reason string }
	if err := json.NewDecoder(answer.Body).Decode(&v); err != nil || answer.StatusCode != 503 || v.Health != "false" || !strings.HasPrefix(v.Reason, "etcdseal: asking etcd: ") {
		t.Errorf("/health: %d %+v %v", answer.StatusCode, v, err)
	}
	for _, path := range []string{"/version", "/metrics", "/livez", "/readyz/non_learner"} {
		answer = ask(t, h, "GET", path, "")
		if got := text(t, answer); answer.StatusCode != 503 || !strings.HasPrefix(got, "etcdseal: asking etcd: ") {
			t.Errorf("%s: %d %s", path, answer.StatusCode, got)
		}
	}
	if answer := ask(t, h, "POST", "/v3/kv/range", `{"key":"YQ=="}`); answer.StatusCode != 503 {
		t.Errorf("the JSON API: %d %s", answer.StatusCode, text(t, answer))
	}
}

// counting is a Dial that must not be called.
func counting(dialed *int) func(context.Context) (net.Conn, string, func(), error) {
	return func(context.Context) (net.Conn, string, func(), error) {
		*dialed++
		return nil, "", nil, errors.New("no")
	}
}

// TestNothingElseReachesEtcd asks for what is answered here, whatever it is.
func TestNothingElseReachesEtcd(t *testing.T) {
	n := 0
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	h := New(Config{Proxy: conn, Dial: counting(&n), MaxRequest: 1 << 20})
	for _, c := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/debug/vars", 404}, {"GET", "/debug/pprof/heap", 404}, {"GET", "/debug/requests", 404},
		{"GET", "/members", 404}, {"GET", "/raft", 404}, {"GET", "/v2/keys/a", 404}, {"GET", "/livez/x", 404},
		{"GET", "/VERSION", 404}, {"GET", "/version/..", 307}, {"GET", "/%76ersion/", 404}, {"GET", "//health", 307},
		{"POST", "/metrics", 405}, {"PUT", "/version", 405}, {"HEAD", "/health", 405}, {"CONNECT", "/version", 405},
		{"OPTIONS", "/version", 200}, {"POST", "/etcdserverpb.KV/Put", 404}, {"PRI", "/", 404},
	} {
		answer := ask(t, h, c.method, c.target, "x")
		if answer.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.target, answer.StatusCode, c.want)
		}
		if answer.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: pages may read it", c.method, c.target)
		}
	}
	if n > 0 {
		t.Errorf("etcd was asked %d times", n)
	}
}

// TestForeignOrigins refuses what pages of other sites have browsers send.
func TestForeignOrigins(t *testing.T) {
	n := 0
	h := New(Config{Dial: counting(&n)})
	for origin, want := range map[string]int{
		"": 503, "https://etcd:2379": 503, "https://ETCD:2379": 503,
		"http://etcd:2379": 403, "http://etcd": 403, "http://evil.example": 403, "null": 403, "%": 403,
	} {
		answer := ask(t, h, "GET", "http://etcd:2379/version", "", "Origin", origin)
		if answer.StatusCode != want {
			t.Errorf("Origin %q: %d, want %d", origin, answer.StatusCode, want)
		}
	}
}

// endless is a JSON string without an end.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'A'
	}
	if e.read == 0 {
		copy(b, `{"key":"`)
	}
	e.read += len(b)
	if e.read > 64<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	return len(b), nil
}

// TestLargeMessages bounds what is read before a message is known whole, and lets a
// stream of small ones go on.
func TestLargeMessages(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	const most = 100000
	h := New(Config{Proxy: conn, MaxRequest: most})
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v3/kv/range", nil)
	body := &endless{}
	r.Body = io.NopCloser(io.LimitReader(body, 8<<20))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 400 || !strings.Contains(w.Body.String(), "too large") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	m := &marshaler{limit: 30, memory: 30}
	m.Marshaler = newMarshaler()
	d := m.NewDecoder(strings.NewReader(strings.Repeat(`{"a":"0123456789"}`, 100)))
	for i := range 100 {
		var v map[string]any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	m.used.Add(30)
	if err := m.NewDecoder(strings.NewReader("{}")).Decode(&m); !errors.Is(err, errTooMany) {
		t.Errorf("while others are read: %v", err)
	}
}

// TestLong tells watches from calls.
func TestLong(t *testing.T) {
	for path, want := range map[string]bool{
		"/v3/watch": true, "/v3beta/watch": true, "/v3/lease/keepalive": true, "/v3/election/observe": true,
		"/v3/kv/range": false, "/watch": false, "/v3/watch/": false, "/version": false,
	} {
		if Long(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}

// TestObserved counts answers by what they are about.
func TestObserved(t *testing.T) {
	var got []string
	n := 0
	h := New(Config{Dial: counting(&n), Observe: func(api string, status int) { got = append(got, fmt.Sprint(api, status)) }})
	for _, target := range []string{"/version", "/v3/nothing", "/nothing"} {
		ask(t, h, "GET", target, "")
	}
	if want := "[etcd503 json404 other404]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestPanics end one request and are logged without what the client sent.
func TestPanics(t *testing.T) {
	h := New(Config{Dial: func(context.Context) (net.Conn, string, func(), error) { panic("secret") }})
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("got %v", v)
		}
	}()
	ask(t, h, "GET", "/version", "")
}

// TestWebsocketEnds ends what serves a websocket when the client is gone without a word
// or says too much, and refuses pages of other origins.
func TestWebsocketEnds(t *testing.T) {
	h := start(t, kind{})
	h.limit = 1000
	var serving sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving.Add(1)
		defer serving.Done()
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	target := "ws" + strings.TrimPrefix(server.URL, "http") + "/v3/watch"
	for name, end := range map[string]func(*websocket.Conn){
		"gone":     func(c *websocket.Conn) { must(t, c.Close()) },
		"too much": func(c *websocket.Conn) { must(t, c.WriteMessage(websocket.TextMessage, make([]byte, 1001))) },
	} {
		conn, answer, err := websocket.DefaultDialer.DialContext(t.Context(), target, nil)
		must(t, err)
		defer answer.Body.Close()
		defer conn.Close()
		must(t, conn.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"YQ=="}}`)))
		if _, _, err := conn.ReadMessage(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		end(conn)
		serving.Wait()
	}
	_, answer, err := websocket.DefaultDialer.DialContext(t.Context(), target, http.Header{"Origin": {"http://evil.example"}})
	if err == nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("a foreign page: %v", err)
	}
	if answer != nil {
		answer.Body.Close()
	}
}
