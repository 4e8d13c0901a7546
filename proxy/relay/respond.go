package relay

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// maxUnflushed is how much of a response is gathered before it is sent.
const maxUnflushed = 4 << 10

// responseWriter is the http.ResponseWriter of a served stream. As net/http's, it
// sends small writes together, knows the length of a response that is there whole
// when the handler returns, and sends trailers that were announced or bear
// http.TrailerPrefix. One goroutine at a time uses it.
type responseWriter struct {
	served *served
	head   bool        // the request's method is HEAD: a body is counted, not sent
	header http.Header // as the handler changes it
	status int         // 0: not chosen yet
	sent   http.Header // as it was when the status was chosen
	begun  bool        // the header block was pushed
	buf    []byte
	length int // of the body
}

// Header implements http.ResponseWriter.
func (w *responseWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Informational answers are not sent.
func (w *responseWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status, w.sent = status, w.header.Clone()
	}
}

// Write implements http.ResponseWriter. It waits while the client is behind.
func (w *responseWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	w.length += len(b)
	if w.head {
		return len(b), nil
	}
	n := len(b)
	for len(w.buf)+len(b) > maxUnflushed {
		k := min(max(maxUnflushed-len(w.buf), 0), len(b))
		if len(w.buf) == 0 {
			k = min(maxFramePayload, len(b))
			if err := w.send(b[:k]); err != nil {
				return n - len(b), err
			}
		} else {
			w.buf = append(w.buf, b[:k]...)
			if err := w.FlushError(); err != nil {
				return n - len(b), err
			}
		}
		b = b[k:]
	}
	w.buf = append(w.buf, b...)
	return n, nil
}

// Flush implements http.Flusher.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	w.WriteHeader(http.StatusOK)
	data := w.buf
	w.buf = w.buf[:0]
	return w.send(data)
}

// EnableFullDuplex is what http.ResponseController calls. HTTP/2 always is.
func (w *responseWriter) EnableFullDuplex() error { return nil }

// send pushes data, and the header block before the first.
func (w *responseWriter) send(data []byte) error {
	if !w.begun {
		w.begun = true
		if err := w.served.push(item{kind: itemHeaders, fields: w.fields(data)}); err != nil {
			return err
		}
	}
	if len(data) == 0 {
		return nil
	}
	return w.served.push(item{kind: itemData, data: data})
}

// last returns what is left to send once the handler has returned.
func (w *responseWriter) last() []item {
	w.WriteHeader(http.StatusOK)
	trailers := w.trailers()
	data := w.buf
	var items []item
	if !w.begun {
		if len(trailers) == 0 && w.sent.Get("Content-Length") == "" && w.status != http.StatusNoContent && w.status != http.StatusNotModified {
			w.sent.Set("Content-Length", strconv.Itoa(w.length))
		}
		items = append(items, item{kind: itemHeaders, fields: w.fields(data), end: len(data)+len(trailers) == 0})
	}
	switch {
	case len(trailers) > 0 && len(data) > 0:
		items = append(items, item{kind: itemData, data: data}, item{kind: itemHeaders, fields: trailers, end: true})
	case len(trailers) > 0:
		items = append(items, item{kind: itemHeaders, fields: trailers, end: true})
	case len(data) > 0 || w.begun:
		items = append(items, item{kind: itemData, data: data, end: true})
	}
	return items
}

// fields is the header block of a response that begins with data.
func (w *responseWriter) fields(data []byte) []hpack.HeaderField {
	fields := []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(w.status)}}
	announced := w.announced()
	for name, values := range w.sent {
		if !announced[name] && !strings.HasPrefix(name, http.TrailerPrefix) && !ofConnection(name) {
			fields = appendFields(fields, name, values)
		}
	}
	if _, ok := w.sent["Content-Type"]; !ok && len(data) > 0 {
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: http.DetectContentType(data)})
	}
	if _, ok := w.sent["Date"]; !ok {
		fields = append(fields, hpack.HeaderField{Name: "date", Value: time.Now().UTC().Format(http.TimeFormat)})
	}
	return fields
}

// announced are the trailers that the header block names.
func (w *responseWriter) announced() map[string]bool {
	names := map[string]bool{}
	for _, value := range w.sent["Trailer"] {
		for name := range strings.SplitSeq(value, ",") {
			names[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return names
}

// trailers are the fields behind the body.
func (w *responseWriter) trailers() []hpack.HeaderField {
	var fields []hpack.HeaderField
	for name := range w.announced() {
		fields = appendFields(fields, name, w.header[name])
	}
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			fields = appendFields(fields, name, values)
		}
	}
	return fields
}

// appendFields appends what HTTP/2 allows of one field.
func appendFields(to []hpack.HeaderField, name string, values []string) []hpack.HeaderField {
	lower := strings.ToLower(name)
	for _, value := range values {
		if httpguts.ValidHeaderFieldName(lower) && httpguts.ValidHeaderFieldValue(value) {
			to = append(to, hpack.HeaderField{Name: lower, Value: value})
		}
	}
	return to
}

// ofConnection reports whether a field belongs to one connection of HTTP/1
// (RFC 9113, 8.2.2).
func ofConnection(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}
