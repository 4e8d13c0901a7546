package proxy

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

const txnPath = "/etcdserverpb.KV/Txn"

// checkRequest is one linearizable, read-only transaction that looks for the
// records. Without any it still asks for the cluster and its revision.
func checkRequest(reserved []byte, records [][]byte) []byte {
	if len(records) == 0 {
		records = [][]byte{reserved}
	}
	txn := &etcdserverpb.TxnRequest{}
	for _, key := range records {
		txn.Success = append(txn.Success, &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestRange{
			RequestRange: &etcdserverpb.RangeRequest{Key: key, KeysOnly: true},
		}})
	}
	b, err := proto.Marshal(txn)
	if err != nil {
		panic(err) // the message has nothing that cannot be marshalled
	}
	return b
}

// checkAnswer is what etcd said to it.
type checkAnswer struct {
	cluster  uint64
	revision int64
	present  []bool
}

func parseCheck(answer []byte, records int) (checkAnswer, error) {
	var txn etcdserverpb.TxnResponse
	if err := proto.Unmarshal(answer, &txn); err != nil {
		return checkAnswer{}, fmt.Errorf("reading etcd's answer: %w", err)
	}
	if txn.GetHeader() == nil || len(txn.GetResponses()) < records {
		return checkAnswer{}, fmt.Errorf("etcd's answer has %d of %d parts", len(txn.GetResponses()), records)
	}
	a := checkAnswer{cluster: txn.GetHeader().GetClusterId(), revision: txn.GetHeader().GetRevision()}
	for _, r := range txn.GetResponses()[:records] {
		a.present = append(a.present, len(r.GetResponseRange().GetKvs()) > 0)
	}
	return a, nil
}
