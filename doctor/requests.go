package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// grpcOverhead is how much larger a message etcd receives than a request that it takes
// (server/config/config.go in etcd).
const grpcOverhead = 512 << 10

// measured is the size of a message that is too large for every etcd but those that are
// set up against etcd's own advice, of 10 MiB at most.
const measured = 16 << 20

// errUnlimited says that a member receives messages of the size that is measured.
var errUnlimited = errors.New("it receives messages of " + size(measured))

// requests compares what is there, and what clients may send, with what etcd takes.
func (d *doctor) requests(ctx context.Context, n *notes, samples []*sample) {
	least, ok := d.limits(ctx, n)
	if !ok {
		return
	}
	d.ownLimit(n, least+grpcOverhead)
	var largest *sample
	for _, s := range samples {
		if largest == nil || s.need > largest.need {
			largest = s
		}
	}
	if largest == nil || largest.need == 0 {
		return
	}
	const subject = "largest value"
	const do = "raise etcd's --max-request-bytes, and limits.maxRequestBytes to 512 KiB more, or have its owner make it smaller"
	text := fmt.Sprintf("of those looked at %s is the largest: writing it sealed, which is 48 bytes longer, takes a request of about %s, and etcd takes %s", largest.needKey, size(largest.need), size(least))
	switch {
	case largest.need > least:
		n.add(Requests, Problem, subject, do, "%s", text)
	case largest.need > least/10*9:
		n.add(Requests, Warning, subject, do, "%s", text)
	default:
		n.add(Requests, OK, subject, "", "%s", text)
	}
}

// ownLimit compares etcdseal's limit with the size of the messages that etcd receives.
func (d *doctor) ownLimit(n *notes, received int64) {
	const subject = "limits.maxRequestBytes"
	own := int64(d.Config.Config.Limits.MaxRequestBytes)
	switch {
	case own < received:
		n.add(Requests, Warning, subject, fmt.Sprintf("set it to %d", received), "%d: etcdseal refuses requests that etcd would receive, up to %d bytes", own, received)
	case own > received:
		n.add(Requests, OK, subject, fmt.Sprintf("set it to %d, to spare memory", received), "%d: etcd itself refuses what is over %d", own, received)
	default:
		n.add(Requests, OK, subject, "", "%d, as large as what etcd receives", own)
	}
}

// limits finds out how large a request each member takes, and returns the least.
func (d *doctor) limits(ctx context.Context, n *notes) (least int64, ok bool) {
	const subject = "etcd's --max-request-bytes"
	const how = "measured by a message that is too large to be read"
	least = math.MaxInt64
	var all []int64
	for _, endpoint := range d.usable {
		received, err := d.receives(ctx, endpoint)
		switch {
		case errors.Is(err, errUnlimited):
			n.add(Requests, Warning, subject, "see that it is meant: etcd advises 10 MiB at most", "more than %s at %s", size(measured-grpcOverhead), endpoint)
			received = measured
		case err != nil:
			n.add(Requests, Unknown, subject, "compare it with limits.maxRequestBytes, which is 512 KiB more by default", "cannot be measured at %s: %v", endpoint, err)
			continue
		}
		least = min(least, received-grpcOverhead)
		all = append(all, received-grpcOverhead)
	}
	if len(all) == 0 {
		return 0, false
	}
	if slices.Min(all) != slices.Max(all) {
		n.add(Requests, Warning, subject, "start all members with the same", "from %d to %d, by member (%s)", slices.Min(all), slices.Max(all), how)
	} else {
		n.add(Requests, OK, subject, "", "%d (%s)", least, how)
	}
	return least, true
}

// receives finds out how large a message a member receives. It is sent one that is larger,
// of which gRPC reads the length and no more: nothing gets to etcd, and little over the
// network. Should it be read all the same, it is nothing that etcd can make a request of,
// and it goes where requests only read.
func (d *doctor) receives(ctx context.Context, endpoint string) (int64, error) {
	conn, err := d.Client.Dial(endpoint)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	err = conn.Invoke(ctx, pb.KV_Range_FullMethodName, garbage{}, garbage{}, grpc.ForceCodecV2(garbage{}), grpc.MaxCallSendMsgSize(math.MaxInt32), grpc.WaitForReady(true))
	s := status.Convert(err)
	switch s.Code() {
	case codes.ResourceExhausted:
	case codes.Internal: // it was read, and is no message
		return 0, errUnlimited
	default:
		return 0, err
	}
	// gRPC tells its limit in this text and nowhere else.
	_, said, found := strings.Cut(s.Message(), "larger than max (")
	var sent, limit int64
	if _, err := fmt.Sscanf(said, "%d vs. %d)", &sent, &limit); !found || err != nil || sent != measured || limit <= grpcOverhead {
		return 0, fmt.Errorf("what it says is not understood: %w", s.Err())
	}
	return limit, nil
}

// garbage encodes everything as a message that is large and is none: no field has such a
// number.
type garbage struct{}

// Marshal implements encoding.CodecV2.
func (garbage) Marshal(any) (mem.BufferSlice, error) {
	part := mem.SliceBuffer(bytes.Repeat([]byte{0xff}, 64<<10))
	message := make(mem.BufferSlice, measured/len(part))
	for i := range message {
		message[i] = part
	}
	return message, nil
}

// Unmarshal implements encoding.CodecV2. No answer is of interest.
func (garbage) Unmarshal(mem.BufferSlice, any) error { return nil }

// Name implements encoding.CodecV2: what etcd is to take it for.
func (garbage) Name() string { return "proto" }
