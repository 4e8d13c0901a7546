// Package wire counts the bytes of calls on both sides of what stands between a client and etcd: those that the client's sockets send and receive, and
// those that a counting TCP copy in front of etcd sees. HTTP/2 frames, headers and TLS records are in them, TCP's and IP's own headers are not.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
	"github.com/etcdseal/etcdseal/bench/tcpcopy"
	"github.com/etcdseal/etcdseal/bench/workload"
)

const (
	// warming calls fill the tables of header compression, which make later headers short.
	warming = 20
	batches = 5
	calls   = 40 // of a batch
	// firstNumber is that of the first target's prefix, apart from those of other measurements.
	firstNumber = 50
)

// counts are bytes since the start.
type counts struct{ up, down, etcdUp, etcdDown int64 }

func (c counts) since(before counts) counts {
	return counts{c.up - before.up, c.down - before.down, c.etcdUp - before.etcdUp, c.etcdDown - before.etcdDown}
}

// Measure starts each of the named targets once more, in front of a counting copy, and makes the calls of the workloads one after the other.
func Measure(ctx context.Context, r *rig.Rig, names []string, workloads []workload.Workload, rep *report.Report, stderr io.Writer) error {
	fmt.Fprintln(stderr, "counting bytes on the wire")
	for i, name := range names {
		if err := measure(ctx, r, name, firstNumber+i, workloads, rep); err != nil {
			return fmt.Errorf("counting bytes through %s: %w", name, err)
		}
	}
	return nil
}

func measure(ctx context.Context, r *rig.Rig, name string, number int, workloads []workload.Workload, rep *report.Report) (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	var etcd, client tcpcopy.Counts
	copying, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- tcpcopy.Serve(copying, l, r.Upstream(rig.Secured(name)), &etcd) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	t, err := r.Target(ctx, name, "-wire", l.Addr().String())
	if err != nil {
		return err
	}
	if t.Process != nil {
		defer func() { err = errors.Join(err, t.Process.Stop()) }()
	}
	dial := append(t.Dial(), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return conn{c, &client}, err
	}))
	conn, err := grpc.NewClient(t.Address, dial...)
	if err != nil {
		return fmt.Errorf("making client: %w", err)
	}
	defer conn.Close()
	look := func() counts {
		return counts{client.Up.Load(), client.Down.Load(), etcd.Up.Load(), etcd.Down.Load()}
	}
	for _, w := range workloads {
		if !w.For(name) {
			continue
		}
		if err := count(ctx, t, conn, w, number, look, rep); err != nil {
			return err
		}
	}
	return nil
}

// count adds the bytes of one workload's calls, each batch of them being a sample.
func count(ctx context.Context, t *rig.Target, conn *grpc.ClientConn, w workload.Workload, number int, look func() counts, rep *report.Report) error {
	p, err := w.Prepare(ctx, t, conn, t.Prefix(number)+w.Short+"/")
	if err != nil {
		return err
	}
	var up, down, etcdUp, etcdDown []float64
	for batch := range batches + 1 {
		n := calls
		if batch == 0 {
			n = warming
		}
		before := look()
		for range n {
			if err := p.Call(ctx, conn); err != nil {
				return err
			}
		}
		if batch == 0 {
			continue
		}
		each := look().since(before)
		up, down = append(up, float64(each.up)/calls), append(down, float64(each.down)/calls)
		etcdUp, etcdDown = append(etcdUp, float64(each.etcdUp)/calls), append(etcdDown, float64(each.etcdDown)/calls)
	}
	rep.Add("on the wire per call: "+w.Name, t.Name, report.Sampled("from client", "B", up), report.Sampled("to client", "B", down),
		report.Sampled("to etcd", "B", etcdUp), report.Sampled("from etcd", "B", etcdDown))
	return nil
}

// conn counts what a client sends (up) and receives (down).
type conn struct {
	net.Conn
	counts *tcpcopy.Counts
}

func (c conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.counts.Down.Add(int64(n))
	return n, err
}

func (c conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.counts.Up.Add(int64(n))
	return n, err
}
