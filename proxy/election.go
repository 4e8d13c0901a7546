package proxy

import (
	"bytes"
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/proxy/relay"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// sessionTTL is what etcd gives a lease that it grants for a campaign, in seconds
// (defaultSessionTTL in client/v3/concurrency/session.go).
const sessionTTL = 60

// campaign makes a Campaign ready for etcd, which writes the value itself: the key
// that it will be written to must be known, so that it can be sealed for it, and so
// must the lease that is a part of the key. etcd compares a campaign's value with
// the one stored by an earlier campaign of the same lease and writes only if they
// differ, so if they are equal in plain the stored envelope is sent.
func (c *call) campaign(ctx context.Context, w *scratch, msg []byte) relay.Verdict {
	in := &v3electionpb.CampaignRequest{}
	if proto.Unmarshal(msg, in) != nil {
		return relay.Verdict{Msg: unreadable()}
	}
	outgoing, cancel := c.caller.context(ctx)
	defer cancel()
	if in.Lease == 0 {
		conn, release, err := c.session.inner(opened, c.rules)
		if err != nil {
			return refuse(statusOf(err))
		}
		defer release()
		granted, err := pb.NewLeaseClient(conn).LeaseGrant(outgoing, &pb.LeaseGrantRequest{TTL: sessionTTL})
		if err != nil {
			return refuse(electionStatus(err))
		}
		in.Lease = granted.ID
	} else if stored := c.sameStored(outgoing, wire.AppendLeaseKey(nil, in.Name, in.Lease), in.Value); stored != nil {
		in.Value = stored
		return c.forwardCampaign(in)
	}
	b, err := proto.Marshal(in)
	if err == nil {
		err = w.scan.Parse(wire.CampaignRequest, b)
	}
	if err != nil {
		return relay.Verdict{Msg: unreadable()}
	}
	found, st, err := c.choose(ctx, w)
	switch {
	case err != nil:
		return refuse(statusOf(err))
	case st != nil:
		return refuse(st)
	case !found:
		return c.forwardCampaign(in)
	}
	out := w.scan.AppendFunc(nil, w.sealValue)
	c.session.metrics.sealed(w.bytes)
	c.asked = true
	return relay.Verdict{Msg: out, Untouched: true}
}

// forwardCampaign passes a campaign on as it is.
func (c *call) forwardCampaign(in *v3electionpb.CampaignRequest) relay.Verdict {
	b, err := proto.Marshal(in)
	if err != nil {
		return relay.Verdict{Msg: unreadable()}
	}
	c.asked = true
	return relay.Verdict{Msg: b, Untouched: true}
}

// sameStored returns the envelope under a key if its plaintext is the given value,
// and nil otherwise. A value stored in plain is not sent as it is: etcd would write
// it if the key went away meanwhile. Why the key cannot be read is for etcd to say.
func (c *call) sameStored(ctx context.Context, key, value []byte) []byte {
	conn, release, err := c.session.inner(raw, nil)
	if err != nil {
		return nil
	}
	defer release()
	resp, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: key})
	if err != nil || len(resp.Kvs) == 0 || c.rules.find(key) == nil {
		return nil
	}
	stored := resp.Kvs[0].Value
	id, err := envelope.Parse(stored)
	if err != nil {
		return nil
	}
	k, err := c.session.openingKey(ctx, id)
	if err != nil {
		return nil
	}
	plain, err := k.Open(bytes.Clone(stored), key)
	if err != nil || !bytes.Equal(plain, value) {
		return nil
	}
	return stored
}

// electionStatus is how etcd's election service passes on what etcd says: the text
// as it is, the code lost.
func electionStatus(err error) *relay.Status {
	st := statusOf(err)
	if known := (rpctypes.EtcdError{}); errors.As(rpctypes.Error(err), &known) {
		st.Code = codes.Unknown
	}
	return st
}
