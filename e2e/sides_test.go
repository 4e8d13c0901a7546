package e2e

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/e2e/answer"
	"github.com/etcdseal/etcdseal/e2e/etcdseal"
)

// side is one of two ends that must not be told apart: an etcd, or an etcdseal in
// front of one of the same version. The keyring is in a file, so that both etcds
// have the same revisions.
type side struct {
	name    string
	lab     *lab
	conn    *grpc.ClientConn // what is compared
	behind  *grpc.ClientConn // the etcd itself
	token   string           // of etcd's authentication, once there is one
	streams map[string]*answer.Stream
	ids     answer.Ids
}

// step is something that is done on both sides, in the same order.
type step struct {
	name string
	do   func(ctx context.Context, s *side) answer.Answer
}

// newSides starts both. version is that of etcd, empty for the newest.
func newSides(t *testing.T, version string) (direct, through *side) {
	t.Helper()
	direct = &side{name: "etcd", lab: newVersionLab(t, version, false)}
	direct.conn = rawConn(t, direct.lab.etcd.Endpoint())
	direct.behind = direct.conn
	through = &side{name: "etcdseal", lab: newVersionLab(t, version, false)}
	cfg := through.lab.proxyConfig(t)
	cfg.KeyringFile = filepath.Join(t.TempDir(), "keyring.json")
	through.conn = rawConn(t, etcdseal.Start(t, cfg).Endpoint())
	through.behind = rawConn(t, through.lab.etcd.Endpoint())
	return direct, through
}

// rawConn is a connection that shows codes and texts as they are, and does not
// judge sizes by itself.
func rawConn(t *testing.T, endpoint string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(endpoint, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// runSteps does all steps on both sides and compares what came of each. It logs how
// many calls came out how.
func runSteps(t *testing.T, direct, through *side, steps []step) {
	t.Helper()
	outcomes := map[codes.Code]int{}
	defer func() { t.Logf("%d steps: %v", len(steps), outcomes) }()
	for _, s := range steps {
		want, got := direct.run(t, s), through.run(t, s)
		outcomes[want.Code]++
		if diff := answer.Diff(want, got); diff != "" {
			t.Errorf("%s (-etcd +etcdseal):\n%s", s.name, shorten(diff))
		}
	}
}

// run does one step. Its answer has the ids taken out.
func (s *side) run(t *testing.T, st step) answer.Answer {
	t.Helper()
	a := st.do(s.with(call(t)), s)
	if err := s.ids.Strip(a); err != nil {
		t.Errorf("%s on the side of %s: %v", st.name, s.name, err)
	}
	return a
}

// with adds what the side's calls carry.
func (s *side) with(ctx context.Context) context.Context {
	if s.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", s.token)
	}
	return metadata.AppendToOutgoingContext(ctx, "client-api-version", "3.7")
}

// unary is a step of one call.
func unary(name, method string, request proto.Message) step {
	return step{name, func(ctx context.Context, s *side) answer.Answer { return answer.Unary(ctx, s.conn, method, request) }}
}

// shorten cuts a difference of long values.
func shorten(text string) string {
	const most = 4000
	if len(text) <= most {
		return text
	}
	return text[:most] + " ..."
}

// open opens a stream of the side under a name. It lives until the test ends.
func open(t *testing.T, name, method string) step {
	return step{"open " + name, func(_ context.Context, s *side) answer.Answer {
		ctx, cancel := context.WithCancel(s.with(context.Background()))
		t.Cleanup(cancel)
		stream, err := answer.Open(ctx, s.conn, method)
		if err != nil {
			return answer.Answer{Text: err.Error()}
		}
		if s.streams == nil {
			s.streams = map[string]*answer.Stream{}
		}
		s.streams[name] = stream
		return answer.Answer{}
	}}
}

// send sends requests on a stream.
func send(name string, requests ...proto.Message) step {
	return step{"send on " + name, func(_ context.Context, s *side) answer.Answer {
		s.streams[name].Send(requests...)
		return answer.Answer{}
	}}
}

// closeSend ends a stream's requests.
func closeSend(name string) step {
	return step{"half-close " + name, func(_ context.Context, s *side) answer.Answer {
		s.streams[name].CloseSend()
		return answer.Answer{}
	}}
}

// receive receives up to the message that is the last, or the stream's end.
func receive(name, what string, last func(proto.Message) bool) step {
	return step{what + " on " + name, func(_ context.Context, s *side) answer.Answer { return s.streams[name].Receive(last) }}
}
