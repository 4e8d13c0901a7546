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
// to dst, which is nil or stands before it in the same memory. First all
// keys are found, so that nothing is done if one has to be waited for. The
// error is errWait or nil.
func (s *session) open(ctx context.Context, rules *Rules, w *scratch, dst []byte) ([]byte, *relay.Status, error) {
	copies := false
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
				return nil, keyRefusal(v.Key, "reading", errPlaintext), nil
			}
			continue
		}
		if err == nil && (last == nil || next != id) {
			id = next
			last, err = s.openingKey(ctx, id)
		}
		if err == errWait {
			return nil, nil, err
		}
		if err != nil {
			last = nil
			s.metrics.failed()
			if st := keyRefusal(v.Key, "opening", err); !r.Passthrough || st.Code == codes.Unavailable {
				return nil, st, nil
			}
			continue
		}
		w.keys[i] = last
		v.Replace, v.NewLen = true, len(v.Old)-envelope.Overhead
		copies = copies || r.Passthrough
	}
	if copies {
		s.openAside(rules, w)
	}
	out, st := s.openAll(w, dst)
	return out, st, nil
}

// openAll returns the response with its values opened, in the response's memory.
// If one cannot be opened, all of it is lost.
func (s *session) openAll(w *scratch, dst []byte) ([]byte, *relay.Status) {
	var st *relay.Status
	total := 0
	out := w.scan.InPlaceFunc(dst, func(i int) []byte {
		v := &w.scan.Values[i]
		if v.New != nil {
			return v.New
		}
		plain, err := w.keys[i].Open(v.Old, v.Key)
		if err != nil {
			if st == nil {
				s.metrics.failed()
				st = keyRefusal(v.Key, "opening", err)
			}
			plain = v.Old[:v.NewLen] // of no use, but of the right length
		}
		total += len(plain)
		return plain
	})
	s.metrics.opened(total)
	return out, st
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
