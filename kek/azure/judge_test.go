package azure_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// everyCall is every call of a KEK by what it asks of a vault.
var everyCall = map[string]string{kek.OpWrap: emulator.OpWrap, kek.OpUnwrap: emulator.OpUnwrap, kek.OpVersion: emulator.OpGet}

// calling makes a call of a KEK.
func calling(ctx context.Context, k *azure.KEK, op string, w kek.Wrapping) error {
	var err error
	switch op {
	case kek.OpWrap:
		_, err = k.Wrap(ctx, testDEK)
	case kek.OpUnwrap:
		_, err = k.Unwrap(ctx, w)
	case kek.OpVersion:
		_, err = k.Created(ctx, w.Version)
	}
	return err
}

// checkPlain fails if an error or the log holds anything that must not be there.
func checkPlain(t *testing.T, l *lab, err error, w kek.Wrapping) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err) + l.log.String()
	for what, bad := range map[string]string{
		"the DEK": string(testDEK[:12]), "the DEK in base64": base64.RawURLEncoding.EncodeToString(testDEK)[:16], "the DEK in hexadecimal": hex.EncodeToString(testDEK[:12]),
		"the wrapped bytes": base64.RawURLEncoding.EncodeToString(w.Ciphertext)[:16], "the secret": secret, "a token": "emulator.",
		"a body": "Caller:", "a body's message": "Operation ", "HTML": "organisation", "a login's answer": "Trace ID",
	} {
		if strings.Contains(text, bad) {
			t.Errorf("%s is in an error or the log: %s", what, text)
		}
	}
}

// Every answer of the error table, met by every call: the class and what the error
// names. The vault's name, TLS and the challenge's verification are real.
func TestErrorsByAnswer(t *testing.T) {
	const notKeyVault = "something between etcdseal and the vault"
	type row struct {
		name  string
		fault func(op string) emulator.Fault
		class kek.Class
		texts []string
		only  string // the only call that meets it
	}
	rows := []row{
		{"no RBAC", emulator.ForbiddenByRBAC, kek.Denied, []string{"403 Forbidden/ForbiddenByRbac", "request ", "Crypto Service Encryption User"}, ""},
		{"no access policy", emulator.AccessDenied, kek.Denied, []string{"403 Forbidden/AccessDenied", "wrapKey"}, ""},
		{"no access policy, by its other name", emulator.ForbiddenByPolicy, kek.Denied, []string{"ForbiddenByPolicy"}, ""},
		{"firewall", emulator.ForbiddenByFirewall, kek.Unavailable, []string{"ForbiddenByFirewall", "address"}, ""},
		{"public access off", emulator.ForbiddenByConnection, kek.Unavailable, []string{"ForbiddenByConnection", "private endpoint"}, ""},
		{"403 for no reason that is known", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 403, Code: "Forbidden", Inner: "BrandNew", Message: "Caller: x"}
		}, kek.Unavailable, []string{"403 Forbidden/BrandNew", "not known"}, ""},
		{"403 without an inner error", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 403, Code: "Forbidden", Message: "Caller: x"}
		}, kek.Unavailable, []string{"403 Forbidden"}, ""},
		{"403 that is HTML", func(op string) emulator.Fault { return emulator.HTML(op, 403) }, kek.Unavailable, []string{"403", notKeyVault}, ""},
		{"404 that is HTML", func(op string) emulator.Fault { return emulator.HTML(op, 404) }, kek.Unavailable, []string{"404", notKeyVault}, ""},
		{"200 that is HTML", func(op string) emulator.Fault { return emulator.HTML(op, 200) }, kek.Unavailable, []string{"200", notKeyVault}, ""},
		{"a redirect", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 307, BeforeLogin: true, Header: http.Header{"Location": {"https://login.microsoftonline.com/elsewhere"}}}
		}, kek.Unavailable, []string{"307", notKeyVault}, ""},
		{"404 of another kind", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 404, Code: "VaultNotFound"}
		}, kek.Unavailable, []string{"404 VaultNotFound"}, ""},
		{"codes that are none", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 403, Code: "Operation \n<b>", Inner: strings.Repeat("x", 100)}
		}, kek.Unavailable, []string{"403 with no error of a Key Vault"}, ""},
		{"codes that repeat what was sent", func(op string) emulator.Fault {
			sent := base64.RawURLEncoding.EncodeToString(testDEK)
			return emulator.Fault{Op: op, Status: 403, Code: sent, Inner: sent, Message: sent, Header: http.Header{"X-Ms-Request-Id": {sent}}}
		}, kek.Unavailable, []string{"403 with no error of a Key Vault"}, ""},
		{"500", func(op string) emulator.Fault { return emulator.ServerError(op, 500) }, kek.Unavailable, []string{"500 InternalServerError"}, ""},
		{"502", func(op string) emulator.Fault { return emulator.ServerError(op, 502) }, kek.Unavailable, []string{"502"}, ""},
		{"503", func(op string) emulator.Fault { return emulator.ServerError(op, 503) }, kek.Unavailable, []string{"503"}, ""},
		{"504 that is HTML", func(op string) emulator.Fault { return emulator.HTML(op, 504) }, kek.Unavailable, []string{"504"}, ""},
		{"408", func(op string) emulator.Fault { return emulator.ServerError(op, 408) }, kek.Unavailable, []string{"408"}, ""},
		{"501", func(op string) emulator.Fault { return emulator.ServerError(op, 501) }, kek.Unavailable, []string{"501"}, ""},
		{"throttled", func(op string) emulator.Fault { return emulator.Throttled(op, "") }, kek.Throttled, []string{"429 Throttled"}, ""},
		{"throttled for long", func(op string) emulator.Fault { return emulator.Throttled(op, "60") }, kek.Throttled, []string{"429 Throttled", "request ", "left alone"}, ""},
		{"bad request", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 400, Code: "BadParameter", Message: "Error occurred while decoding OAEP padding."}
		}, kek.Corrupt, []string{"400 BadParameter", "does not open"}, kek.OpUnwrap},
		{"bad request, wrapping", func(op string) emulator.Fault { return emulator.Fault{Op: op, Status: 400, Code: "BadParameter"} }, kek.Corrupt, []string{"400 BadParameter"}, kek.OpWrap},
		{"bad request, asking", func(op string) emulator.Fault { return emulator.Fault{Op: op, Status: 400, Code: "BadParameter"} }, kek.Unavailable, []string{"400 BadParameter"}, kek.OpVersion},
		{"bad request that is HTML", func(op string) emulator.Fault { return emulator.HTML(op, 400) }, kek.Unavailable, []string{"400", notKeyVault}, ""},
		{"wrong issuer", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 401, Code: "Unauthorized", Message: "AKV10032: Invalid issuer."}
		}, kek.Unavailable, []string{"401 Unauthorized", "tenant"}, ""},
		{"a challenge without a tenant, which makes the SDK panic", func(op string) emulator.Fault {
			return emulator.Challenge(op, `Bearer authorization="https://login.example", resource="https://vault.azure.net"`)
		}, kek.Unavailable, []string{"does not say where to log in"}, ""},
		{"a challenge for another service", func(op string) emulator.Fault {
			return emulator.Challenge(op, `Bearer authorization="https://login.microsoftonline.com/`+emulator.DefaultTenant+`", resource="https://management.azure.com"`)
		}, kek.Unavailable, []string{"for another service"}, ""},
		{"a challenge for one's own domain", func(op string) emulator.Fault {
			return emulator.Challenge(op, `Bearer authorization="https://login.microsoftonline.com/`+emulator.DefaultTenant+`", resource="vault.azure.net"`)
		}, kek.Unavailable, []string{"for another service"}, ""},
		{"a challenge of another kind", func(op string) emulator.Fault { return emulator.Challenge(op, `Negotiate`) }, kek.Unavailable, []string{"401"}, ""},
		{"a claims challenge that is none", func(op string) emulator.Fault {
			return emulator.Challenge(op, `Bearer error="insufficient_claims", claims="*"`)
		}, kek.Unavailable, []string{"401", notKeyVault}, ""},
		{"a large answer", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 200, ContentType: "application/json", Body: `{"value":"` + strings.Repeat("A", 2<<20) + `"}`}
		}, kek.Unavailable, []string{"too large"}, ""},
		{"another key's answer", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 200, ContentType: "application/json", Body: `{"kid":"https://prod.vault.azure.net/keys/other/0123","value":"AAAA","key":{"kid":"https://prod.vault.azure.net/keys/other/0123","kty":"RSA"},"attributes":{}}`}
		}, kek.Unavailable, []string{"another key or version"}, ""},
		{"another vault's answer", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 200, ContentType: "application/json", Body: `{"kid":"https://evil.vault.azure.net/keys/etcd/0123","value":"AAAA","key":{"kid":"https://evil.vault.azure.net/keys/etcd/0123","kty":"RSA"},"attributes":{}}`}
		}, kek.Unavailable, []string{"another key or version"}, ""},
		{"an empty object", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 200, ContentType: "application/json", Body: `{}`}
		}, kek.Unavailable, []string{"another key or version"}, ""},
		{"a value that is not base64url", func(op string) emulator.Fault {
			return emulator.Fault{Op: op, Status: 200, ContentType: "application/json", Body: `{"value":"+Operation +"}`}
		}, kek.Unavailable, []string{notKeyVault}, kek.OpUnwrap},
		{"broken off", func(op string) emulator.Fault { return emulator.Fault{Op: op, Drop: true} }, kek.Unavailable, []string{"no answer"}, ""},
		{"hanging", func(op string) emulator.Fault { return emulator.Fault{Op: op, Hang: true} }, kek.Unavailable, []string{"deadline exceeded"}, ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for op, vaultOp := range everyCall {
				if r.only != "" && r.only != op {
					continue
				}
				inBubble(t, func(t *testing.T) {
					l := newLab(t)
					k := l.open(t, nil)
					w := must(t, k)
					l.Inject(r.fault(vaultOp))
					err := calling(t.Context(), k, op, w)
					wants(t, op, err, r.class, append(r.texts, `"prod"`)...)
					checkPlain(t, l, err, w)
					l.ClearFaults()
					time.Sleep(2 * time.Minute) // the bubble's time: a throttled vault is asked again
					if err := calling(t.Context(), k, op, w); err != nil {
						t.Errorf("%s after that: %v", op, err)
					}
				})
			}
		})
	}
}

// Every state of a key, met by wrapping and by unwrapping: validity in time forbids
// only the former.
func TestErrorsByState(t *testing.T) {
	past, future := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, r := range []struct {
		name         string
		change       func(v *emulator.Vault)
		undo         func(v *emulator.Vault)
		wrap, unwrap kek.Class
		text         string
	}{
		{"disabled", func(v *emulator.Vault) { v.SetEnabled("etcd", "", false) }, func(v *emulator.Vault) { v.SetEnabled("etcd", "", true) }, kek.Disabled, kek.Disabled, "KeyDisabled"},
		{"expired", func(v *emulator.Vault) { v.SetExpires("etcd", "", past) }, func(v *emulator.Vault) { v.SetExpires("etcd", "", time.Time{}) }, kek.Disabled, 0, "KeyExpired"},
		{"not yet valid", func(v *emulator.Vault) { v.SetNotBefore("etcd", "", future) }, func(v *emulator.Vault) { v.SetNotBefore("etcd", "", past) }, kek.Disabled, 0, "KeyNotYetValid"},
		{"may not wrap", func(v *emulator.Vault) { v.SetOperations("etcd", "", "unwrapKey") }, func(v *emulator.Vault) { v.SetOperations("etcd", "", "wrapKey", "unwrapKey") }, kek.Denied, 0, "KeyOperationForbidden"},
		{"may not unwrap", func(v *emulator.Vault) { v.SetOperations("etcd", "", "wrapKey") }, func(v *emulator.Vault) { v.SetOperations("etcd", "", "wrapKey", "unwrapKey") }, 0, kek.Denied, "KeyOperationForbidden"},
		{"deleted", func(v *emulator.Vault) { v.Delete("etcd") }, func(v *emulator.Vault) { v.Recover("etcd") }, kek.NotFound, kek.NotFound, "recover"},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			k := l.open(t, nil)
			w := must(t, k)
			r.change(l.vault)
			for op, class := range map[string]kek.Class{kek.OpWrap: r.wrap, kek.OpUnwrap: r.unwrap} {
				err := calling(t.Context(), k, op, w)
				if class == 0 && err != nil {
					t.Errorf("%s: %v, want it to work", op, err)
				} else if class != 0 {
					wants(t, op, err, class, r.text)
					checkPlain(t, l, err, w)
				}
			}
			r.undo(l.vault)
			opens(t, k, w)
			opens(t, k, must(t, k))
		})
	}
}

// Without a version yet, what is wrong with the key is said by whoever asks first.
func TestErrorsAtTheStart(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(l *lab)
		class  kek.Class
		text   string
	}{
		{"no key", func(l *lab) { l.vault.Delete("etcd"); l.vault.Purge("etcd") }, kek.NotFound, "KeyNotFound"},
		{"deleted", func(l *lab) { l.vault.Delete("etcd") }, kek.NotFound, "recover it"},
		{"disabled", func(l *lab) { l.vault.SetEnabled("etcd", "", false) }, kek.Disabled, "switched off"},
		{"expired", func(l *lab) { l.vault.SetExpires("etcd", "", time.Now().Add(-time.Hour)) }, kek.Disabled, "expired"},
		{"not yet valid", func(l *lab) { l.vault.SetNotBefore("etcd", "", time.Now().Add(time.Hour)) }, kek.Disabled, "not valid yet"},
		{"not RSA", func(l *lab) { l.vault.CreateKey("etcd", "EC", 0) }, kek.Denied, `type "EC"`},
		{"no vault of this name", func(l *lab) { l.RemoveVault(host) }, kek.Unavailable, "no answer"},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			k := l.open(t, nil)
			r.change(l)
			_, err := k.Wrap(t.Context(), testDEK)
			wants(t, "wrapping", err, r.class, r.text, `"prod"`)
			var e *kek.Error
			if !asError(err, &e) || e.Op != kek.OpWrap {
				t.Errorf("wrapping: %#v, want the operation %q", err, kek.OpWrap)
			}
			_, err = k.Version(t.Context())
			wants(t, "the version", err, r.class, r.text)
		})
	}
}

// Records are not believed: what cannot be a wrapping of a vault is not sent to it.
func TestUnwrapAsksNobodyAboutNonsense(t *testing.T) {
	l := newLab(t)
	k := l.open(t, nil)
	w := must(t, k)
	l.ForgetCalls()
	for name, change := range map[string]func(*kek.Wrapping){
		"no version":        func(w *kek.Wrapping) { w.Version = "" },
		"a path":            func(w *kek.Wrapping) { w.Version = "../../other/" + w.Version },
		"a URL":             func(w *kek.Wrapping) { w.Version = "https://evil.vault.azure.net/keys/etcd/" + w.Version },
		"another algorithm": func(w *kek.Wrapping) { w.Algorithm = "RSA1_5" },
		"SHA-1":             func(w *kek.Wrapping) { w.Algorithm = "RSA-OAEP" },
		"an annotation":     func(w *kek.Wrapping) { w.Annotations = map[string][]byte{"a": nil} },
		"another size":      func(w *kek.Wrapping) { w.Ciphertext = w.Ciphertext[1:] },
	} {
		bad := w
		change(&bad)
		_, err := k.Unwrap(t.Context(), bad)
		wants(t, name, err, kek.Corrupt)
	}
	if calls := l.Calls(); len(calls) != 0 {
		t.Errorf("the vault was asked: %v", calls)
	}
}

// What opens and is no DEK is corrupt.
func TestUnwrapRefusesWhatIsNoDEK(t *testing.T) {
	l := newLab(t)
	k := l.open(t, nil)
	w := must(t, k)
	l.Inject(emulator.Fault{Op: emulator.OpUnwrap, Status: 200, ContentType: "application/json",
		Body: `{"kid":"` + l.vault.URL() + `/keys/etcd/` + w.Version + `","value":"AAAA"}`})
	_, err := k.Unwrap(t.Context(), w)
	wants(t, "three bytes", err, kek.Corrupt, "3 bytes")
}

// A vault's name that leads somewhere else gets no request and no token.
func TestTLSIsVerified(t *testing.T) {
	l := newLab(t)
	other := newLab(t)
	for name, change := range map[string]func(*azure.Config){
		"unknown authority": func(c *azure.Config) { c.CAFile = "" },
		"another authority": func(c *azure.Config) { c.CAFile = other.config().CAFile },
		"another name's certificate": func(c *azure.Config) {
			c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx, "tcp", "") }
			c.VaultURL = "https://unknown.vault.azure.net"
		},
	} {
		k := l.open(t, change)
		_, err := k.Version(t.Context())
		wants(t, name, err, kek.Unavailable, "no answer")
	}
	if calls := l.Calls(); len(calls) != 0 {
		t.Errorf("requests were sent: %v", calls)
	}
}
