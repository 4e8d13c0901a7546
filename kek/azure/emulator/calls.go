package emulator

import "time"

// Operations, as they are logged and as faults name them. The first group is a
// vault's.
const (
	OpCreate       = "create"
	OpGet          = "get"
	OpUpdate       = "update"
	OpRotate       = "rotate"
	OpWrap         = "wrapkey"
	OpUnwrap       = "unwrapkey"
	OpEncrypt      = "encrypt"
	OpDecrypt      = "decrypt"
	OpVersions     = "versions"
	OpGetPolicy    = "getrotationpolicy"
	OpUpdatePolicy = "updaterotationpolicy"
	OpDelete       = "delete"
	OpGetDeleted   = "getdeleted"
	OpPurge        = "purge"
	OpRecover      = "recover"

	OpToken     = "token"
	OpDiscovery = "discovery"
	OpIMDS      = "imds"
)

// Call is one request that the Server got, in the words of the vault's audit log
// where it has some. There is nothing secret in it.
type Call struct {
	Time            time.Time `json:"time"`
	Vault           string    `json:"vault,omitempty"`   // host name
	Op              string    `json:"op"`                // one of the Op constants
	Key             string    `json:"key,omitempty"`     // the key's name
	Version         string    `json:"version,omitempty"` // as asked for; "" is the latest
	Tenant          string    `json:"tenant,omitempty"`  // the caller's, or that of the login
	Client          string    `json:"client,omitempty"`  // the caller's client id
	Status          int       `json:"status"`            // 0 for none: the call hung or was broken off
	Code            string    `json:"code,omitempty"`    // error.code
	Inner           string    `json:"inner,omitempty"`   // error.innererror.code
	RequestID       string    `json:"requestId"`         // x-ms-request-id, as answered
	ClientRequestID string    `json:"clientRequestId"`   // x-ms-client-request-id, as sent
	UserAgent       string    `json:"userAgent"`
}

// Calls returns all calls that were answered or given up so far, in the order of
// their ends.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Count returns how many of the calls were of an operation.
func (s *Server) Count(op string) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Op == op {
			n++
		}
	}
	return n
}

// ForgetCalls empties the log of calls.
func (s *Server) ForgetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

func (s *Server) log(c Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}
