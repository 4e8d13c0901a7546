package wire

import (
	"fmt"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"
)

// largeNormal is the size in bytes from which on messages are normalised one at a
// time: decoded, a message of empty operations takes fifty times its size, and
// many clients could send one at once.
const largeNormal = 64 << 10

var oneLarge sync.Mutex // held while a large message is decoded; it guards memory, no state

// normalise decodes a message by etcd's generated code and encodes it again:
// each singular field once, the last one of several; embedded messages merged;
// the last member of a oneof; unknown fields kept, at the end.
func normalise(m Message, msg []byte) ([]byte, error) {
	p := generated(m)
	if p == nil {
		return nil, fmt.Errorf("normalising %s: no generated code", m)
	}
	if len(msg) > largeNormal {
		oneLarge.Lock()
		defer oneLarge.Unlock()
	}
	if err := proto.Unmarshal(msg, p); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", m, err)
	}
	out, err := proto.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", m, err)
	}
	return out, nil
}

// generated returns an empty message of the generated type, nil for the parts of
// messages.
func generated(m Message) proto.Message {
	switch m {
	case RangeRequest:
		return new(etcdserverpb.RangeRequest)
	case PutRequest:
		return new(etcdserverpb.PutRequest)
	case DeleteRangeRequest:
		return new(etcdserverpb.DeleteRangeRequest)
	case TxnRequest:
		return new(etcdserverpb.TxnRequest)
	case WatchRequest:
		return new(etcdserverpb.WatchRequest)
	case CampaignRequest:
		return new(v3electionpb.CampaignRequest)
	case ProclaimRequest:
		return new(v3electionpb.ProclaimRequest)
	case LeaderRequest:
		return new(v3electionpb.LeaderRequest)
	case ResignRequest:
		return new(v3electionpb.ResignRequest)
	case LockRequest:
		return new(v3lockpb.LockRequest)
	case UnlockRequest:
		return new(v3lockpb.UnlockRequest)
	case RangeResponse:
		return new(etcdserverpb.RangeResponse)
	case RangeStreamResponse:
		return new(etcdserverpb.RangeStreamResponse)
	case PutResponse:
		return new(etcdserverpb.PutResponse)
	case DeleteRangeResponse:
		return new(etcdserverpb.DeleteRangeResponse)
	case TxnResponse:
		return new(etcdserverpb.TxnResponse)
	case WatchResponse:
		return new(etcdserverpb.WatchResponse)
	case LeaderResponse:
		return new(v3electionpb.LeaderResponse)
	}
	return nil
}
