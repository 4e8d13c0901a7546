package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

// upgrader takes websockets of every origin that comes here: foreign ones were refused.
var upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}

// serveJSON serves etcd's JSON API, over a websocket if that is asked for: each message
// of the client's is one of the request's body, and each line of the answer is a
// message. Tokens come as with etcd (github.com/tmc/grpc-websocket-proxy), in the
// subprotocol or a cookie. Unlike there, messages are bounded, and the call ends with
// the socket.
func (h *Handler) serveJSON(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		h.json.ServeHTTP(w, r)
		return
	}
	protocol := r.Header.Get("Sec-Websocket-Protocol")
	var header http.Header
	if strings.HasPrefix(protocol, "Bearer") {
		header = http.Header{"Sec-Websocket-Protocol": {"Bearer"}}
	}
	conn, err := upgrader.Upgrade(w, r, header)
	if err != nil {
		return // it was answered
	}
	ctx, cancel := context.WithCancel(r.Context())
	body, send := io.Pipe()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL.String(), body)
	if err == nil {
		authorize(request, r, protocol)
		conn.SetReadLimit(h.limit)
		var reading sync.WaitGroup
		reading.Go(func() {
			defer cancel()
			receive(conn, send)
		})
		defer reading.Wait()
		answer := &socketWriter{conn: conn, header: http.Header{}}
		h.json.ServeHTTP(answer, request)
		answer.end()
	}
	_ = body.Close()
	_ = conn.Close() // it has no more to say
	cancel()
}

// authorize takes a caller's token over.
func authorize(to, from *http.Request, protocol string) {
	if protocol != "" {
		token := ""
		if _, after, ok := strings.Cut(protocol, "Bearer,"); ok {
			token = "Bearer " + strings.Trim(after, " ")
		}
		to.Header.Set("Authorization", token)
	}
	if cookie, err := from.Cookie("token"); err == nil {
		to.Header.Set("Authorization", "Bearer "+cookie.Value)
	}
}

// receive copies a client's messages until the socket or the call ends.
func receive(conn *websocket.Conn, to *io.PipeWriter) {
	defer to.Close()
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if _, err := to.Write(append(message, '\n')); err != nil {
			return
		}
	}
}

// socketWriter is an http.ResponseWriter that sends lines as messages. A status is not
// sent, as with etcd; errors are told in the body too.
type socketWriter struct {
	conn   *websocket.Conn
	header http.Header
	line   []byte
}

// Header implements http.ResponseWriter.
func (w *socketWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *socketWriter) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (w *socketWriter) Write(b []byte) (int, error) {
	n := len(b)
	for {
		before, after, whole := bytes.Cut(b, []byte("\n"))
		w.line = append(w.line, before...)
		if !whole {
			return n, nil
		}
		if err := w.send(); err != nil {
			return 0, err
		}
		b = after
	}
}

// Flush implements http.Flusher. Lines are sent when they are whole.
func (w *socketWriter) Flush() {}

// end sends a last line that was not ended.
func (w *socketWriter) end() { _ = w.send() } // the client may be gone

func (w *socketWriter) send() error {
	if len(w.line) == 0 {
		return nil
	}
	err := w.conn.WriteMessage(websocket.TextMessage, w.line)
	w.line = w.line[:0]
	return err
}
