package proxy

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy/relay"
)

// maxQuoted is how much of a key an error names, in bytes. etcd's keys may have
// more than a megabyte, and errors travel in headers.
const maxQuoted = 256

// quote names a key in an error.
func quote(key []byte) string {
	if len(key) > maxQuoted {
		return fmt.Sprintf("%q… (%d bytes)", key[:maxQuoted], len(key))
	}
	return strconv.Quote(string(key))
}

// open returns a scanned response with its values opened, in its memory, appended
// to dst, which is nil or stands before it in the same memory. Nothing is done if a
// key has to be waited for. The error is errWait or nil.
func (s *session) open(ctx context.Context, rules *Rules, w *scratch, dst []byte) ([]byte, *relay.Status, error) {
	aside, st, err := s.openingKeys(ctx, rules, w)
	if st != nil || err != nil {
		return nil, st, err
	}
	if aside {
		s.openAside(rules, w)
	}
	out := w.scan.InPlaceFunc(dst, w.openInPlace)
	return out, s.opened(w), nil
}

// openingKeys finds the keys of all values that are to be opened. aside says that
// some may turn out not to be openable and are to be handed out as they are stored
// then. The error is errWait or nil.
func (s *session) openingKeys(ctx context.Context, rules *Rules, w *scratch) (aside bool, _ *relay.Status, _ error) {
	var id envelope.ID
	var last *envelope.Key
	for i := range w.scan.Values {
		v := &w.scan.Values[i]
		w.keys = append(w.keys, nil)
		r := rules.find(v.Key)
		if r == nil {
			continue
		}
		next, err := envelope.Parse(v.Old)
		if err == envelope.ErrNotEnvelope {
			if r.DenyPlaintext {
				return false, keyRefusal(v.Key, "reading", errPlaintext), nil
			}
			continue
		}
		if err == nil && (last == nil || next != id) {
			id = next
			last, err = s.openingKey(ctx, id)
		}
		if err == errWait {
			return false, nil, err
		}
		if err != nil {
			last = nil
			s.metrics.failed()
			if st := keyRefusal(v.Key, "opening", err); !r.Passthrough || st.Code == codes.Unavailable {
				return false, st, nil
			}
			continue
		}
		w.keys[i] = last
		v.Replace, v.NewLen = true, len(v.Old)-envelope.Overhead
		aside = aside || r.Passthrough
	}
	return aside, nil, nil
}

// opened counts what was opened, and says what could not be: then all of the
// response is lost.
func (s *session) opened(w *scratch) *relay.Status {
	s.metrics.opened(w.bytes)
	if w.err == nil {
		return nil
	}
	s.metrics.failed()
	return keyRefusal(w.bad, "opening", w.err)
}

// openAside opens the values under rules that let an envelope pass which cannot
// be opened: only afterwards is it known how long they are.
func (s *session) openAside(rules *Rules, w *scratch) {
	for i, key := range w.keys {
		v := &w.scan.Values[i]
		if key == nil || !rules.find(v.Key).Passthrough {
			continue
		}
		plain, err := key.Open(slices.Clone(v.Old), v.Key)
		if err != nil {
			s.metrics.failed()
			v.Replace = false
			continue
		}
		v.New = plain
		s.metrics.opened(len(plain))
	}
}
