package upstream

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseEndpoint(t *testing.T) {
	tests := map[string]address{
		"http://127.0.0.1:2379":    {network: "tcp", target: "127.0.0.1:2379", host: "127.0.0.1"},
		"https://etcd.example:1/":  {network: "tcp", target: "etcd.example:1", host: "etcd.example", secure: true},
		"https://[::1]:2379":       {network: "tcp", target: "[::1]:2379", host: "::1", secure: true},
		"unix:///run/etcd/sock":    {network: "unix", target: "/run/etcd/sock", host: "sock"},
		"unixs:///run/etcd/a:2379": {network: "unix", target: "/run/etcd/a:2379", host: "a", secure: true},
	}
	for endpoint, want := range tests {
		want.name = endpoint
		got, err := parseEndpoint(endpoint)
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(address{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", endpoint, diff)
		}
	}
}

func TestParseEndpointRefuses(t *testing.T) {
	for _, endpoint := range []string{
		"", "127.0.0.1:2379", "etcd.example", "tcp://a:1", "HTTPS://a:1", "https://", "https://a", "https://:1", "https://a:", "https://a:1/path",
		"https://user:pw@a:1", "https://a:1?x", "https://a:1?", "https://a:1#f", "https://a:port", "https://a b:1", "unix://relative", "unix://", "unixs:/a",
	} {
		if a, err := parseEndpoint(endpoint); err == nil {
			t.Errorf("%q: parsed as %+v", endpoint, a)
		}
	}
}

func TestParseEndpointsReportsEverything(t *testing.T) {
	_, err := parseEndpoints([]string{"https://a:1", "https://user:pw@a:2", "http://a:3", "https://a:1"})
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	if strings.Contains(fmt.Sprint(err), "pw") {
		t.Errorf("the error shows a password: %v", err)
	}
	want := []string{"endpoints[1]", "endpoints[2]", "endpoints[3]"}
	if len(got) != len(want) {
		t.Fatalf("got %q, want problems with %q", got, want)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("problem %d: got %q, want one with %s", i, got[i], want[i])
		}
	}
	if _, err := parseEndpoints(nil); err == nil {
		t.Error("accepted no endpoints")
	}
}
