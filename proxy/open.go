package proxy

import (
	"context"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

func quote(key []byte) string { return strconv.Quote(string(key)) }

// open opens the values of a scanned response where they stand. First all keys
// are found, so that nothing is changed if one has to be waited for. The error
// is errWait or nil.
func (s *session) open(ctx context.Context, rules *Rules, w *scratch) (*relay.Status, error) {
	values := w.scan.Values
	var id envelope.ID
	var last *envelope.Key
	for i := range values {
		v := &values[i]
		w.keys = append(w.keys, nil)
		r := rules.find(v.Key)
		if r == nil {
			continue
		}
		next, err := envelope.Parse(v.Old)
		if err == envelope.ErrNotEnvelope {
			if r.DenyPlaintext {
				return keyRefusal(v.Key, "reading", errPlaintext), nil
			}
			continue
		}
		if err == nil && (last == nil || next != id) {
			id = next
			last, err = s.openingKey(ctx, id)
		}
		if err == errWait {
			return nil, err
		}
		if err != nil {
			last = nil
			if st := keyRefusal(v.Key, "opening", err); !r.Passthrough || st.Code == codes.Unavailable {
				return st, nil
			}
			s.metrics.failed()
			continue
		}
		w.keys[i] = last
	}
	return s.openAll(rules, values, w.keys), nil
}

// openAll opens every value that has a key.
func (s *session) openAll(rules *Rules, values []wire.Value, keys []*envelope.Key) *relay.Status {
	total := 0
	for i, key := range keys {
		if key == nil {
			continue
		}
		v := &values[i]
		var saved []byte
		passthrough := rules.find(v.Key).Passthrough
		if passthrough {
			saved = slices.Clone(v.Old) // a failed Open zeroes it
		}
		plain, err := key.Open(v.Old, v.Key)
		if err != nil {
			s.metrics.failed()
			if !passthrough {
				return keyRefusal(v.Key, "opening", err)
			}
			copy(v.Old, saved)
			continue
		}
		v.New, v.Replace = plain, true
		total += len(plain)
	}
	s.metrics.opened(total)
	return nil
}
