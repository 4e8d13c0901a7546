package e2e

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchStream is one Watch call with several watches.
type watchStream struct {
	stream etcdserverpb.Watch_WatchClient
}

func newWatchStream(t *testing.T, client *clientv3.Client) *watchStream {
	t.Helper()
	stream, err := etcdserverpb.NewWatchClient(client.ActiveConnection()).Watch(call(t))
	if err != nil {
		t.Fatalf("opening watch stream: %v", err)
	}
	return &watchStream{stream}
}

// create watches one key from the present on and returns the watch's id.
func (s *watchStream) create(t *testing.T, key string) int64 {
	t.Helper()
	s.start(t, key, 0)
	response := s.next(t)
	if !response.Created || response.Canceled {
		t.Fatalf("watch of %s was not created: %s", key, response.CancelReason)
	}
	return response.WatchId
}

// start asks for a watch of one key from a revision, 0 for the present.
func (s *watchStream) start(t *testing.T, key string, revision int64) {
	t.Helper()
	request := &etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
		CreateRequest: &etcdserverpb.WatchCreateRequest{Key: []byte(key), StartRevision: revision},
	}}
	if err := s.stream.Send(request); err != nil {
		t.Fatalf("asking for a watch: %v", err)
	}
}

func (s *watchStream) next(t *testing.T) *etcdserverpb.WatchResponse {
	t.Helper()
	response, err := s.stream.Recv()
	if err != nil {
		t.Fatalf("reading watch stream: %v", err)
	}
	return response
}

// expectCancelled demands that the next answer cancels the watch for a reason
// of the proxy's own that names the key.
func (s *watchStream) expectCancelled(t *testing.T, id int64, key string) {
	t.Helper()
	response := s.next(t)
	if response.WatchId != id || !response.Canceled || len(response.Events) != 0 {
		t.Errorf("watch %d: cancelled %v with %d events, want watch %d cancelled without any",
			response.WatchId, response.Canceled, len(response.Events), id)
	}
	if reason := response.CancelReason; !strings.HasPrefix(reason, "etcdseal: ") || !strings.Contains(reason, key) {
		t.Errorf("watch was cancelled since %q, want a reason of etcdseal's that names %s", reason, key)
	}
}
