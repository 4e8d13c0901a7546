package azure

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	azruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/etcdseal/etcdseal/kek"
)

// newTestKEK returns a KEK that reaches nobody.
func newTestKEK(t *testing.T) *KEK {
	t.Helper()
	k, err := New(Config{VaultURL: "https://v.vault.azure.net", Key: "etcd", Credential: Credential{Type: ManagedIdentity}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// A panic under a call is an error that repeats nothing of an unknown value.
func TestPanicIsAnError(t *testing.T) {
	k := newTestKEK(t)
	for text, value := range map[string]any{"index out of range": nil, "string": "the-secret", "*errors.errorString": errors.New("the-secret")} {
		_, err := call(t.Context(), k, kek.OpUnwrap, "v", func(context.Context) (int, error) {
			if value == nil {
				return 0, errors.New(strings.Split("one", "/")[3])
			}
			panic(value)
		}, nil)
		if kek.ClassOf(err) != kek.Unavailable || !strings.Contains(err.Error(), "panicked: ") || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%v", err)
		}
	}
}

// panicking is a credential that panics.
type panicking struct{}

func (panicking) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	panic("the-secret")
}

func TestPanicInLoginIsAnError(t *testing.T) {
	l := &login{cfg: Credential{Type: ManagedIdentity}, inner: panicking{}, made: sha256.Sum256(nil)}
	_, err := l.GetToken(t.Context(), policy.TokenRequestOptions{})
	var e *LoginError
	if !errors.As(err, &e) || strings.Contains(err.Error(), "the-secret") {
		t.Errorf("%v", err)
	}
}

// answering is a transport that gives every request one answer.
type answering struct {
	body   string
	answer *http.Response
}

func (a *answering) Do(r *http.Request) (*http.Response, error) {
	a.answer = &http.Response{StatusCode: 200, Request: r, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a.body))}
	return a.answer, nil
}

// The body of an answer is wiped once it was read, also if the call fails then.
func TestAnswerIsWiped(t *testing.T) {
	for _, fails := range []error{nil, errForeign} {
		transport := &answering{body: `{"kid":"https://v.vault.azure.net/keys/etcd/1","value":"dGhlLWRlaw"}`}
		client, err := azkeys.NewClient("https://v.vault.azure.net", token{}, &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: transport}})
		if err != nil {
			t.Fatal(err)
		}
		dek, err := guard(t.Context(), func(ctx context.Context) ([]byte, error) {
			answer, err := client.UnwrapKey(ctx, "etcd", "1", parameters(AlgorithmRSA, []byte{1}), nil)
			if err != nil {
				return nil, err
			}
			return answer.Result, fails
		})
		if err != fails || string(dek) != "the-dek" {
			t.Fatalf("%q, %v", dek, err)
		}
		body, err := azruntime.Payload(transport.answer)
		if err != nil || len(body) != len(transport.body) || strings.Trim(string(body), "\x00") != "" {
			t.Errorf("it is still there: %q, %v", body, err)
		}
	}
}

// A call ends when its time is over, whatever the SDK does; what it still gets is
// discarded, and Close waits for that.
func TestTryThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKEK(t)
		release, discarded := make(chan struct{}), ""
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := call(ctx, k, kek.OpUnwrap, "v", func(context.Context) (string, error) {
			<-release
			return "the DEK", nil
		}, func(value string) { discarded = value })
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d > 4*time.Second {
			t.Errorf("%v after %v", err, d)
		}
		time.AfterFunc(time.Hour, func() { close(release) })
		if err := k.Close(); err != nil || discarded != "the DEK" || time.Since(start) < time.Hour {
			t.Errorf("Close: %v, discarded %q, after %v", err, discarded, time.Since(start))
		}
	})
}

func TestGateStrikes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		for i := range 10 {
			for range 5 { // answers to calls that were under way
				g.pause(kek.Throttled, 0, "the vault")
			}
			want := min(pauseFirst<<i, pauseLast)
			start := time.Now()
			if g.wait(t.Context()) != nil {
				t.Fatal("it does not open")
			}
			if d := time.Since(start); d < want*3/4 || d > want*5/4 {
				t.Errorf("pause %d takes %v, want about %v", i, d, want)
			}
		}
		g.pass()
		g.pause(kek.Throttled, 0, "the vault")
		start := time.Now()
		g.wait(t.Context())
		if d := time.Since(start); d > 2*pauseFirst {
			t.Errorf("after an answer it takes %v", d)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "1": time.Second, "120": 2 * time.Minute, "-1": 0, "1.5": 0, "x": 0,
		"Tue, 24 Nov 2026 10:00:30 GMT": 30 * time.Second, "Tue, 24 Nov 2026 09:00:00 GMT": 0, "999999999": 24 * time.Hour,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestChallenge(t *testing.T) {
	const host = "v.vault.azure.net"
	for text, want := range map[string]error{
		``:          nil,
		`Negotiate`: nil,
		`Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`:                          nil,
		`Bearer authorization="https://login.microsoftonline.com/tenant" scope="https://vault.azure.net/.default"`:                     nil,
		`Bearer authorization="https://login.example", resource="https://vault.azure.net"`:                                             errChallenge,
		`Bearer authorization="tenant", resource="https://vault.azure.net"`:                                                            errChallenge,
		`Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://management.azure.com"`:                     errResource,
		`Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://azure.net.evil"`:                           errResource,
		`Bearer authorization="https://login.microsoftonline.com/tenant", resource="x"`:                                                errResource,
		`Bearer realm="", authorization_uri="https://login.microsoftonline.com/x", error="insufficient_claims", claims="eyJhIjoxfQ=="`: nil,
	} {
		if got := checkChallenge(http.Header{"Www-Authenticate": {text}}, host); !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// transporter answers every request with one challenge.
type transporter struct{ challenge string }

func (t transporter) Do(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 401, Request: r, Header: http.Header{"Www-Authenticate": {t.challenge}}, Body: http.NoBody}, nil
}

// token is a credential that always has one.
type token struct{}

func (token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// What the check lets through, the SDK's parser can read.
func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{
		`Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`,
		`Bearer authorization="https://login.example", resource="https://vault.azure.net"`,
		`Bearer authorization=a/b/c resource=https://vault.azure.net`, `Bearer authorization= resource=`, `authorization="x"`, ``,
		`Bearer authorization=", scope="https://vault.azure.net", resource=`, `Bearer error="insufficient_claims", claims="e30="`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, challenge string) {
		header := http.Header{"Www-Authenticate": {challenge}}
		if checkChallenge(header, "v.vault.azure.net") != nil {
			return
		}
		client, err := azkeys.NewClient("https://v.vault.azure.net", token{}, &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{
			Transport: transporter{challenge}, Retry: policy.RetryOptions{MaxRetries: -1},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.GetKey(t.Context(), "etcd", "", nil); err == nil {
			t.Error("a 401 is no error")
		}
	})
}

// Whatever a kid is, what is taken of it is a version's name, and the kid is this
// vault's and key's.
func FuzzKeyID(f *testing.F) {
	for _, seed := range []string{
		"https://v.vault.azure.net/keys/etcd/0123456789abcdef0123456789abcdef", "https://V.vault.azure.net:443/keys/ETCD/0", "https://v.vault.azure.net/keys/etcd",
		"http://v.vault.azure.net/keys/etcd/0", "https://v.vault.azure.net/keys/etcd/../0", "https://v.vault.azure.net@evil/keys/etcd/0", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		version, err := parseKeyID(id, "v.vault.azure.net", "etcd")
		if err != nil {
			return
		}
		rest := strings.TrimSuffix(id, "/"+version)
		if !versionForm.MatchString(version) || !strings.EqualFold(strings.Replace(rest, ":443", "", 1), "https://v.vault.azure.net/keys/etcd") {
			t.Errorf("%q gives %q", id, version)
		}
		sdk := azkeys.ID(id)
		if got := sdk.Version(); got != version {
			t.Errorf("%q gives %q, with the SDK %q", id, version, got)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"1", "-1", "9223372036854775807", "Tue, 24 Nov 2026 10:00:30 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "x"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, after, ms string) {
		got := retryAfter(http.Header{"Retry-After": {after}, "X-Ms-Retry-After-Ms": {ms}}, time.Unix(1795000000, 0))
		if got < 0 || got > 24*time.Hour {
			t.Errorf("%v", got)
		}
	})
}

// What an error repeats of an answer is a few plain words.
func FuzzProblem(f *testing.F) {
	f.Add(403, "id-1", `{"error":{"code":"Forbidden","message":"m","innererror":{"code":"KeyDisabled"}}}`)
	f.Add(404, "", `{"error":{"code":"KeyNotFound"}}`)
	f.Add(500, "x y", `<html>`)
	f.Add(400, "", `{"error":{"code":"a\nb","innererror":null}}`)
	f.Fuzz(func(t *testing.T, status int, id, body string) {
		answer := &http.Response{StatusCode: status, Header: http.Header{"X-Ms-Request-Id": {id}}, Body: io.NopCloser(strings.NewReader(body))}
		got := judgeAnswer(answer, kek.OpUnwrap)
		if got.err == nil || strings.ContainsAny(got.err.Error(), "\n\r<>") || len(got.err.Error()) > 600 {
			t.Errorf("%v", got.err)
		}
		if got.class.Denies() && status != 403 && status != 404 && status != 409 {
			t.Errorf("status %d is taken for the key holder's no", status)
		}
	})
}
