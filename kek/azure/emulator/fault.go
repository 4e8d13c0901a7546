package emulator

import (
	"net/http"
	"strconv"
	"time"
)

// Fault is something that goes wrong for the next calls that fit it. The zero value
// of a field says nothing about it; without Status, Hang or Drop the call is only
// delayed.
type Fault struct {
	// Op is the operation, one of the Op constants; "" is any of a vault's.
	Op string
	// Vault is the host name of the vault; "" is any.
	Vault string
	// Times is how many calls it befalls; 0 is all until Clear.
	Times int
	// BeforeLogin has it befall calls that carry no valid token, too.
	BeforeLogin bool

	// Delay is how long the answer takes.
	Delay time.Duration
	// Hang has the call never answered.
	Hang bool
	// Drop breaks the call off without an answer.
	Drop bool
	// AfterEffect has what was asked for carried out all the same.
	AfterEffect bool

	// Status is the answer's HTTP status.
	Status int
	// Code, Inner and Message are the error.code, error.innererror.code and
	// error.message of a JSON body.
	Code, Inner, Message string
	// Body, if set, is the answer's body instead, and ContentType its type.
	Body, ContentType string
	// Header is added to the answer's.
	Header http.Header
}

// Injected is a Fault at work.
type Injected struct {
	s     *Server
	fault Fault
	hits  int
}

// Inject puts a fault to work. Faults are tried in the order of their injection.
func (s *Server) Inject(f Fault) *Injected {
	i := &Injected{s: s, fault: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, i)
	return i
}

// Hits returns how many calls the fault has befallen.
func (i *Injected) Hits() int {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	return i.hits
}

// Clear ends the fault.
func (i *Injected) Clear() {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	i.fault.Times = -1
}

// ClearFaults ends all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.faults {
		i.fault.Times = -1
	}
	s.faults = nil
}

// take returns the first fault for a call, and counts it.
func (s *Server) take(op, vault string, loggedIn bool) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.faults {
		f := &i.fault
		general := f.Op == "" && vault != ""
		if f.Op != op && !general || f.Vault != "" && f.Vault != vault || f.BeforeLogin == loggedIn && vault != "" {
			continue
		}
		if f.Times < 0 || f.Times > 0 && i.hits >= f.Times {
			continue
		}
		i.hits++
		taken := *f
		return &taken
	}
	return nil
}

// wait does the part of a fault that takes time, and reports whether there is
// anybody left to answer.
func (s *Server) wait(f *Fault, r *http.Request) bool {
	var after <-chan time.Time
	switch {
	case f.Hang:
	case f.Delay > 0:
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		after = timer.C
	default:
		return true
	}
	select {
	case <-after:
		return true
	case <-r.Context().Done():
	case <-s.closed:
	}
	return false
}

// problem returns the fault's answer, or nil if it has none.
func (f *Fault) problem() *problem {
	if f.Status == 0 {
		return nil
	}
	return &problem{status: f.Status, code: f.Code, inner: f.Inner, message: f.Message, header: f.Header}
}

// write sends the fault's answer.
func (f *Fault) write(w http.ResponseWriter) {
	if f.Body == "" {
		f.problem().write(w)
		return
	}
	for name, values := range f.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", f.ContentType)
	w.WriteHeader(f.Status)
	_, _ = w.Write([]byte(f.Body)) // the client may have gone
}

// Throttled is the answer to too many calls. retryAfter is the header of that name,
// "" for none, which is what was seen of the service.
func Throttled(op, retryAfter string) Fault {
	f := Fault{Op: op, Status: 429, Code: "Throttled",
		Message: "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"}
	if retryAfter != "" {
		f.Header = http.Header{"Retry-After": {retryAfter}}
	}
	return f
}

// ServerError is a 5xx with a JSON body.
func ServerError(op string, status int) Fault {
	return Fault{Op: op, Status: status, Code: "InternalServerError", Message: "The server encountered an internal error (" + strconv.Itoa(status) + ")."}
}

// HTML is an answer by something that is no Key Vault.
func HTML(op string, status int) Fault {
	return Fault{Op: op, Status: status, BeforeLogin: true, ContentType: "text/html; charset=us-ascii",
		Body: "<!DOCTYPE HTML><HTML><HEAD><TITLE>Blocked</TITLE></HEAD><BODY><h2>This page was blocked by your organisation</h2></BODY></HTML>"}
}

// ForbiddenByRBAC is the 403 of a caller without a role.
func ForbiddenByRBAC(op string) Fault {
	return Fault{Op: op, Status: 403, Code: "Forbidden", Inner: "ForbiddenByRbac",
		Message: "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: " + caller +
			"\r\nAction: 'Microsoft.KeyVault/vaults/keys/wrap/action'\r\nResource: '/subscriptions/s/resourcegroups/g/providers/microsoft.keyvault/vaults/v/keys/k'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: 'DeniedWithNoValidRBAC' \r\nVault: v;location=emulator\r\n"}
}

// AccessDenied is the 403 of a caller without an access policy.
func AccessDenied(op string) Fault {
	return Fault{Op: op, Status: 403, Code: "Forbidden", Inner: "AccessDenied",
		Message: "The user, group or application '" + caller + "' does not have keys wrapKey permission on key vault 'v;location=emulator'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287"}
}

// ForbiddenByPolicy is the same with the other inner code that the service was
// seen to use.
func ForbiddenByPolicy(op string) Fault {
	f := AccessDenied(op)
	f.Inner = "ForbiddenByPolicy"
	return f
}

// ForbiddenByFirewall is the 403 of an address that the firewall does not let in.
func ForbiddenByFirewall(op string) Fault {
	return Fault{Op: op, Status: 403, Code: "Forbidden", Inner: "ForbiddenByFirewall",
		Message: "Client address is not authorized and caller is not a trusted service.\r\nClient address: 192.0.2.1\r\nCaller: " + caller + "\r\nVault: v;location=emulator"}
}

// ForbiddenByConnection is the 403 of a vault without public network access.
func ForbiddenByConnection(op string) Fault {
	return Fault{Op: op, Status: 403, Code: "Forbidden", Inner: "ForbiddenByConnection",
		Message: "Public network access is disabled and request is not from a trusted service nor via an approved private link.\r\nCaller: " + caller + "\r\nVault: v;location=emulator"}
}

// Challenge is a 401 with this WWW-Authenticate header.
func Challenge(op, header string) Fault {
	return Fault{Op: op, Status: 401, BeforeLogin: true, Code: "Unauthorized", Message: "AKV10000: Request is missing a Bearer or PoP token.",
		Header: http.Header{"Www-Authenticate": {header}}}
}
