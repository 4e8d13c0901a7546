package wire

import (
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// normalise decodes a message by etcd's generated code and encodes it again:
// each singular field once, the last one of several; embedded messages merged;
// the last member of a oneof; unknown fields kept, at the end. A message with more
// than so many parts is not decoded: an empty one takes two bytes here and two
// hundred there.
func normalise(m Message, msg []byte, parts int) ([]byte, verdict) {
	switch n := count(m, msg, parts, 1); {
	case n < 0:
		return nil, malformed
	case n > parts:
		return nil, tooMany
	}
	p := generated(m)
	if proto.Unmarshal(msg, p) != nil {
		return nil, malformed
	}
	out, err := proto.Marshal(p)
	if err != nil {
		return nil, malformed
	}
	return out, plain
}

// count returns the number of embedded messages in a message, at every depth and
// however often they are given, or any number above max if there are more or they
// nest too deep. It is -1 if it has seen that the message is not valid.
func count(m Message, msg []byte, max, depth int) (n int) {
	if depth > maxDepth {
		return max + 1
	}
	c := &schemas[m]
	for at := 0; at < len(msg) && n <= max; {
		number, wire, size := protowire.ConsumeTag(msg[at:])
		if size < 0 {
			return -1
		}
		data := at + size
		if at = skipField(msg, data, uint64(number), wire); at < 0 {
			return -1
		}
		fd := c.field(uint64(number))
		if fd.kind != embedded || wire != protowire.BytesType {
			continue
		}
		part, _ := protowire.ConsumeBytes(msg[data:])
		inside := count(fd.sub, part, max-n-1, depth+1)
		if inside < 0 {
			return -1
		}
		n += 1 + inside
	}
	return n
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
