package proxy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"
)

// TestCallerMetadata: calls on a caller's behalf carry what it sent, but for fields
// that would have gRPC refuse to make the call.
func TestCallerMetadata(t *testing.T) {
	c := &caller{}
	c.keep([]hpack.HeaderField{
		{Name: ":path", Value: "/p"}, {Name: "content-type", Value: "application/grpc"}, {Name: "grpc-timeout", Value: "1S"},
		{Name: "token", Value: "a.b"}, {Name: "x", Value: "1"}, {Name: "x", Value: "2"},
		{Name: "y-bin", Value: "AP8,AQ=="}, {Name: "bad-bin", Value: "*"},
		{Name: "name", Value: "Zo\u00eb"}, {Name: "tab", Value: "a\tb"}, {Name: "a!b", Value: "c"},
	})
	ctx, cancel := c.context(t.Context())
	defer cancel()
	got, _ := metadata.FromOutgoingContext(ctx)
	want := metadata.MD{"token": {"a.b"}, "x": {"1", "2"}, "y-bin": {"\x00\xff", "\x01"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, ok := ctx.Deadline(); !ok {
		t.Error("the timeout is lost")
	}
}
