package azure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/etcdseal/etcdseal/kek"
)

// Problem is an error that a vault answered with. It holds the codes of the answer's
// body and nothing else of it.
type Problem struct {
	Status    int    // HTTP
	Code      string // error.code; empty if the body is not a vault's
	Inner     string // error.innererror.code
	RequestID string // x-ms-request-id
	hint      string
}

// Error names the codes, the request for the vault's own audit log, and what to do.
func (p *Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the vault answered %d", p.Status)
	if codes := p.codes(); codes != "" {
		b.WriteString(" " + codes)
	} else {
		b.WriteString(" with no error of a Key Vault")
	}
	if p.RequestID != "" {
		b.WriteString(", request " + p.RequestID)
	}
	if p.hint != "" {
		b.WriteString(": " + p.hint)
	}
	return b.String()
}

func (p *Problem) codes() string {
	if p.Inner != "" {
		return p.Code + "/" + p.Inner
	}
	return p.Code
}

// failure is what is made of the failure of one try.
type failure struct {
	class    kek.Class
	err      error
	again    bool          // another try may help
	answered bool          // the vault answered, and does not ask to be left alone
	wait     time.Duration // what the vault asks to wait for
}

func (f failure) code() string {
	if p, ok := errors.AsType[*Problem](f.err); ok {
		return p.codes()
	}
	return ""
}

// Texts of what to do.
const (
	hintGone    = "there is no such key or version; if it was deleted, recover it (az keyvault key recover)"
	hintRole    = `give the identity the role "Key Vault Crypto Service Encryption User" on the vault, or in access policies the permissions get, wrapKey and unwrapKey; a change takes minutes`
	hintNetwork = "the vault's firewall does not let etcdseal in: allow its address or network, or set address to a private endpoint"
	hintLogin   = "the vault does not accept the login: is the vault in the credential's tenant?"
	hintForeign = "something between etcdseal and the vault answers in its stead"
)

// judge says what the failure of a try means. Whatever is not known to be the key
// holder's no is Unavailable.
func (k *KEK) judge(err error, op string, x *exchange) failure {
	if err == nil {
		return failure{answered: true}
	}
	var re *azcore.ResponseError
	if errors.As(err, &re) && re.RawResponse != nil {
		return judgeAnswer(re.RawResponse, op)
	}
	for _, known := range []error{errForeign, errChallenge, errResource, errLargeAnswer} {
		if errors.Is(err, known) || errors.Is(x.failure, known) {
			return failure{class: kek.Unavailable, err: known, answered: true}
		}
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		return failure{class: kek.Unavailable, err: p, answered: true}
	}
	if e, ok := errors.AsType[*LoginError](err); ok {
		return judgeLogin(e)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return failure{class: kek.Unavailable, again: true, err: fmt.Errorf("no answer from %s: %w", x.whom(), context.DeadlineExceeded)}
	}
	if x.failure != nil {
		return failure{class: kek.Unavailable, again: true, err: fmt.Errorf("no answer from %s: %w", x.whom(), plainCause(x.failure))}
	}
	// What is left is the SDK's, about an answer that it could not read. Its
	// text may repeat parts of the answer.
	return failure{class: kek.Unavailable, answered: true, err: fmt.Errorf("the answer, HTTP status %d, is not a Key Vault's: %s", x.status, hintForeign)}
}

// judgeLogin says what a failed login means: nothing about the key, whatever the
// reason.
func judgeLogin(e *LoginError) failure {
	f := failure{class: kek.Unavailable, err: e, again: e.again, wait: e.wait}
	if e.Status == http.StatusTooManyRequests {
		f.class = kek.Throttled
	}
	return f
}

// whom says who was asked last.
func (x *exchange) whom() string {
	if x.login {
		return "the login service"
	}
	return "the vault"
}

// judgeAnswer says what an error that the vault answered with means.
func judgeAnswer(answer *http.Response, op string) failure {
	p := readProblem(answer)
	f := failure{class: kek.Unavailable, err: p, answered: true, again: passes(p.Status)}
	switch p.Status {
	case http.StatusTooManyRequests:
		f.class = kek.Throttled
	case http.StatusNotFound:
		if p.Code == "KeyNotFound" {
			f.class, p.hint = kek.NotFound, hintGone
		}
	case http.StatusConflict:
		switch p.Inner {
		case "ObjectIsDeletedButRecoverable", "ObjectIsBeingDeleted":
			f.class, p.hint = kek.NotFound, "the key was deleted: recover it (az keyvault key recover), or purge it to have another one made, which loses everything that it wrapped"
		}
	case http.StatusForbidden:
		f.class, p.hint = judgeForbidden(p)
	case http.StatusUnauthorized:
		p.hint = hintLogin
	case http.StatusBadRequest:
		if p.Code != "" && op != kek.OpVersion {
			f.class, p.hint = kek.Corrupt, "this version of the key does not open what it was given, or is not made for its algorithm"
		}
	}
	if f.again {
		f.wait = retryAfter(answer.Header, time.Now())
	} else if p.Code == "" && p.hint == "" {
		p.hint = hintForeign
	}
	return f
}

// judgeForbidden tells the vault's ways of saying 403 apart. A no without a known
// reason may come from anything on the way.
func judgeForbidden(p *Problem) (class kek.Class, hint string) {
	inner := p.Inner
	if inner == "" {
		inner = p.Code
	}
	switch inner {
	case "KeyDisabled":
		return kek.Disabled, "the key or this version is switched off: enable it, for as long as something is wrapped by it"
	case "KeyExpired":
		return kek.Disabled, "this version has expired, which forbids wrapping and not unwrapping: rotate the key, or change its expiry"
	case "KeyNotYetValid":
		return kek.Disabled, "this version is not valid yet, which forbids wrapping and not unwrapping"
	case "KeyOperationForbidden":
		return kek.Denied, "the key's permitted operations (key_ops) lack wrapKey or unwrapKey: add them"
	case "ForbiddenByRbac", "AccessDenied", "ForbiddenByPolicy":
		return kek.Denied, hintRole
	case "ForbiddenByFirewall", "ForbiddenByConnection":
		return kek.Unavailable, hintNetwork
	}
	if p.Code == "" {
		return kek.Unavailable, hintForeign
	}
	return kek.Unavailable, "the vault refuses for a reason that is not known here"
}

// readProblem reads an error answer. innererror is not parsed by the SDK.
func readProblem(answer *http.Response) *Problem {
	p := &Problem{Status: answer.StatusCode, RequestID: plainID(answer.Header.Get("X-Ms-Request-Id"))}
	body, err := azruntime.Payload(answer)
	if err != nil {
		return p
	}
	var in struct {
		Error struct {
			Code       string `json:"code"`
			InnerError *struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &in) != nil {
		return p
	}
	p.Code = plainCode(in.Error.Code)
	if in.Error.InnerError != nil && p.Code != "" {
		p.Inner = plainCode(in.Error.InnerError.Code)
	}
	return p
}

// maxWord is the longest word of an answer that errors and logs repeat, in bytes: more
// than any code or request id has, less than a DEK has in Base64.
const maxWord = 40

// plainCode returns a code if it is one that may be logged, else "".
func plainCode(code string) string {
	if len(code) > maxWord {
		return ""
	}
	for _, c := range code {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_') {
			return ""
		}
	}
	return code
}

// plainCause returns of a failed request what says why, and nothing that may hold
// more: the errors of net and TLS, whose texts are known, else the error's type.
func plainCause(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return plainTLS(e.Err)
	}
	if e, ok := errors.AsType[*proxyError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return plainTLS(err)
}

// plainTLS is the part of plainCause about certificates.
func plainTLS(err error) error {
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w: if it is a proxy's that inspects TLS, set caFile", e)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("the certificate is not for %q", e.Host)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return e
	}
	if e, ok := errors.AsType[tls.AlertError](err); ok {
		return e
	}
	return fmt.Errorf("the connection failed (%T)", err)
}
