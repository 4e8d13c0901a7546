package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// The mixture, in per cent of the calls: what a kube-apiserver 1.37 was seen to send in its first minutes, rounded, with its long lists replaced by
// short ones so that they are not all that is measured. Creations and deletions are those of one object after the other.
const (
	mixedGets  = 60
	mixedTxns  = 33 // creations, updates and deletions, a third each
	mixedLists = 100 - mixedGets - mixedTxns
	// mixedSecrets is the share of the objects that are secrets, under the rule of an etcdseal that has one; the rest is under none.
	mixedSecrets = 10
	mixedPage    = 50
)

// prepareMixed makes single reads, transactions and short lists over secrets and other objects.
func prepareMixed(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, prefix string) (*Prepared, error) {
	// The secrets lie below the prefix that was given, everything else below one that is under no rule.
	others := rig.PlainPrefix + "mixed/" + strings.TrimPrefix(strings.TrimPrefix(prefix, rig.SealedPrefix), rig.PlainPrefix)
	secretGets, err := prepareGet(objects*mixedSecrets/100, small)(ctx, t, conn, prefix+"kept/")
	if err != nil {
		return nil, err
	}
	plain := *t
	plain.Sealed = false
	otherGets, err := prepareGet(objects, small)(ctx, &plain, conn, others+"kept/")
	if err != nil {
		return nil, err
	}
	listSecrets, err := shortList(prefix + "kept/")
	if err != nil {
		return nil, err
	}
	listOthers, err := shortList(others + "kept/")
	if err != nil {
		return nil, err
	}
	secrets, rest := newLife(prefix+"txn/", t.Sealed), newLife(others+"txn/", false)
	call := func(ctx context.Context, conn *grpc.ClientConn) error {
		get, list, lives := otherGets.Call, listOthers, rest
		if rand.IntN(100) < mixedSecrets {
			get, list, lives = secretGets.Call, listSecrets, secrets
		}
		switch n := rand.IntN(100); {
		case n < mixedGets:
			return get(ctx, conn)
		case n < mixedGets+mixedLists:
			return list(ctx, conn)
		}
		return lives.call(ctx, conn)
	}
	return &Prepared{Call: call, check: func(ctx context.Context, through, direct *grpc.ClientConn) (int, error) {
		for _, of := range []check{secrets.check, rest.check, otherGets.check} {
			if _, err := of(ctx, through, direct); err != nil {
				return 0, err
			}
		}
		return secretGets.Check(ctx, through, direct)
	}}, nil
}

func shortList(prefix string) (load.Call, error) {
	requests, err := load.Serialise(&pb.RangeRequest{Key: []byte(prefix), RangeEnd: endOfPrefix(prefix), Limit: mixedPage})
	if err != nil {
		return nil, fmt.Errorf("making list: %w", err)
	}
	return unary(pb.KV_Range_FullMethodName, requests, mixedPage*small), nil
}
