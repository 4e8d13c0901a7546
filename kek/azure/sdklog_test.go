package azure_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// childMark tells a process of this test what it is.
const childMark = "ETCDSEAL_SDKLOG_CHILD"

// With the SDK's logging switched on from outside, nothing of it gets out. It is set
// up when a process starts, so that the test is one of its own.
func TestSDKLogsNothing(t *testing.T) {
	if os.Getenv(childMark) != "" {
		talk(t, os.Getenv(childMark) == "bare")
		return
	}
	run := func(mark string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSDKLogsNothing$", "-test.v")
		child.Env = append(os.Environ(), childMark+"="+mark, "AZURE_SDK_GO_LOGGING=all")
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("the child %s: %v\n%s", mark, err, out)
		}
		return string(out)
	}
	if out := run("bare"); !strings.Contains(out, "REQUEST") {
		t.Fatalf("the SDK by itself logs nothing either, so that this test shows nothing:\n%s", out)
	}
	out := run("etcdseal")
	for what, bad := range map[string]string{
		"a request": "REQUEST", "an answer": "RESPONSE", "a login": "Credential", "the vault's name": host, "the DEK": string(testDEK[:12]),
		"the DEK in base64": base64.RawURLEncoding.EncodeToString(testDEK)[:16], "the DEK in hexadecimal": hex.EncodeToString(testDEK[:12]),
		"the secret": secret, "a token": "emulator.", "a body": "Caller:",
	} {
		if strings.Contains(out, bad) {
			t.Errorf("%s is in what the process prints:\n%s", what, out)
		}
	}
}

// nobody is a transport without anybody behind it.
type nobody struct{}

func (nobody) Do(*http.Request) (*http.Response, error) { return nil, errors.New("nobody is there") }

// talk uses the SDK as much as it can: by itself if bare, else by a KEK.
func talk(t *testing.T, bare bool) {
	l := newLab(t)
	if bare {
		client, err := azkeys.NewClient(l.vault.URL(), nil, &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{
			Transport: nobody{}, Retry: policy.RetryOptions{MaxRetries: -1},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.GetKey(t.Context(), "etcd", "", nil); err == nil {
			t.Error("nobody answered")
		}
		return
	}
	k := l.open(t, nil)
	w := must(t, k)
	opens(t, k, w)
	l.RevokeTokens()
	opens(t, k, w)
	for _, fault := range []emulator.Fault{
		emulator.ForbiddenByRBAC(""), emulator.HTML("", 200), emulator.ServerError("", 500), {Drop: true},
		{Op: emulator.OpUnwrap, Status: 400, Code: "BadParameter", Message: string(testDEK)},
	} {
		injected := l.Inject(fault)
		_, unwrapErr := k.Unwrap(t.Context(), w)
		_, wrapErr := k.Wrap(t.Context(), testDEK)
		if unwrapErr == nil || fault.Op == "" && wrapErr == nil {
			t.Errorf("%+v: it works", fault)
		}
		injected.Clear()
	}
	l.SetSecret(clientID, "another")
	if _, err := l.open(t, nil).Unwrap(t.Context(), w); err == nil {
		t.Error("it works with an old secret")
	}
	l.AddApp(emulator.App{ClientID: "logged", Managed: true})
	opens(t, l.open(t, func(c *azure.Config) {
		c.Credential = azure.Credential{Type: azure.ManagedIdentity, ClientID: "logged"}
	}), w)
}
