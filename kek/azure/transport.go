package azure

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
)

// Times of a connection. The pings are azcore's own settings, which a transport of
// one's own has to repeat: without them a connection that died without a word is
// used for a quarter of an hour.
const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 90 * time.Second
	pingAfter        = 10 * time.Second
	pingTimeout      = 5 * time.Second
)

// maxAnswer is the largest answer that is read, in bytes. Real ones have some
// thousands.
const maxAnswer = 1 << 20

// imdsHost is the metadata service of a virtual machine, which is never reached by
// a proxy.
const imdsHost = "169.254.169.254"

var errLargeAnswer = errors.New("the answer is too large for one of a vault")

// silenceSDK keeps the SDK from writing the bodies of answers to standard error,
// which it does when AZURE_SDK_GO_LOGGING is set.
func silenceSDK() { azlog.SetListener(nil) }

// exchange is what one try of a call leaves behind.
type exchange struct {
	requestID string    // ours, the same for all requests of a call
	status    int       // of the vault's answer, if the last request was to it
	vaultID   string    // x-ms-request-id of that answer
	failure   error     // why the last request got no answer
	date      time.Time // of the vault's last answer, by its clock
	login     bool      // the last request was to the login service
}

type exchangeKey struct{}

// newHTTP returns the HTTP client for all requests of a KEK: to the vault, to the
// login service and to the metadata service.
func newHTTP(cfg *Config, vault string) (*http.Client, *http.Transport, error) {
	roots, err := readRoots(cfg.CAFile)
	if err != nil {
		return nil, nil, err
	}
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	address, proxy := cfg.Address, cfg.Proxy
	base := &http.Transport{
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			if address != "" && to == vault+":443" {
				to = address
			}
			return dial(ctx, network, to)
		},
		Proxy: func(r *http.Request) (*url.URL, error) {
			if proxy == nil || r.URL.Hostname() == imdsHost || address != "" && r.URL.Host == vault {
				return nil, nil
			}
			return proxy(r)
		},
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
			if answer.StatusCode != http.StatusOK {
				return &proxyError{answer.StatusCode}
			}
			return nil
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    handshakeTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	client := &http.Client{
		Transport: &transport{base: base, vault: vault},
		// Nothing that is asked for here redirects, and a redirect would
		// carry what is sent to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client, base, nil
}

// proxyError says that a proxy does not lead to where it was asked to.
type proxyError struct{ status int }

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy answered %d: does it let etcdseal through to the vault and the login service?", e.status)
}

// readRoots returns the system's authorities and those in a file, or nil, which is
// the system's.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading caFile: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading caFile: %s holds no certificate in PEM", file)
	}
	return roots, nil
}

// transport notes in the request's exchange what happened, names requests to the
// vault, and keeps from the SDK the answers that it cannot bear.
type transport struct {
	base  http.RoundTripper
	vault string
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		x = &exchange{}
	}
	toVault := r.URL.Host == t.vault
	x.login, x.failure, x.status, x.vaultID = !toVault, nil, 0, ""
	if toVault {
		r = r.Clone(r.Context())
		r.Header.Set("X-Ms-Client-Request-Id", x.requestID)
	}
	answer, err := t.base.RoundTrip(r)
	if err != nil {
		x.failure = err
		return nil, err
	}
	answer.Body = &limitedBody{ReadCloser: answer.Body, left: maxAnswer}
	if !toVault {
		return answer, nil
	}
	x.status, x.vaultID = answer.StatusCode, plainID(answer.Header.Get("X-Ms-Request-Id"))
	x.date, _ = http.ParseTime(answer.Header.Get("Date")) // the zero time if it says none
	if answer.StatusCode == http.StatusUnauthorized {
		if err := checkChallenge(answer.Header, t.vault); err != nil {
			_ = answer.Body.Close() // nothing of it is used
			x.failure = err
			return nil, err
		}
	}
	return answer, nil
}

// limitedBody fails an answer that goes on for too long.
type limitedBody struct {
	io.ReadCloser
	left int
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errLargeAnswer
	}
	return n, err
}

// plainID returns an identifier if it is one that may be logged, else "".
func plainID(id string) string {
	if len(id) > maxWord {
		return ""
	}
	for _, c := range id {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-') {
			return ""
		}
	}
	return id
}

// newRequestID returns a random UUID (RFC 9562, version 4).
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
