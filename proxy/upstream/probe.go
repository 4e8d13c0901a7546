package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// recheck is how soon an endpoint that is not healthy is probed again.
const recheck = time.Second

// window is the fixed flow-control window of the probes' connections, in bytes, the least that grpc-go takes. With a fixed window grpc-go sends no PING
// to measure bandwidth, and there is no keepalive either: the probes themselves are the traffic.
const window = 64 << 10

// Run probes every endpoint, at once and then again and again, until ctx ends; then it returns nil. A probe's connection that breaks has the endpoint
// probed at once.
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, e := range p.endpoints {
		wg.Go(func() { p.tend(ctx, e) })
	}
	wg.Wait()
	return nil
}

// tend probes one endpoint until ctx ends.
func (p *Pool) tend(ctx context.Context, e *endpoint) {
	for {
		p.probe(ctx, e)
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-p.cfg.After(p.delay(e)):
		}
	}
}

// delay is the time until the next probe.
func (p *Pool) delay(e *endpoint) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.health == Healthy {
		return p.cfg.ProbeInterval
	}
	return min(recheck, p.cfg.ProbeInterval)
}

// Probe probes every endpoint once and returns when all answers are in, within Config.ProbeTimeout. It may be called with or without Run.
func (p *Pool) Probe(ctx context.Context) {
	var wg sync.WaitGroup
	for _, e := range p.endpoints {
		wg.Go(func() { p.probe(ctx, e) })
	}
	wg.Wait()
}

// probe probes one endpoint and takes in what was found. It finds nothing when ctx ends.
func (p *Pool) probe(ctx context.Context, e *endpoint) {
	e.probing.Lock()
	defer e.probing.Unlock()
	bounded, cancel := context.WithTimeout(ctx, p.cfg.ProbeTimeout)
	defer cancel()
	start := p.cfg.Now()
	f := p.examine(bounded, e)
	f.took = p.cfg.Now().Sub(start)
	if ctx.Err() == nil && p.base.Err() == nil {
		p.settle(e, f)
	}
}

// examine asks an endpoint for its status. The caller holds e.probing.
func (p *Pool) examine(ctx context.Context, e *endpoint) finding {
	fresh := e.client == nil
	if fresh {
		client, err := p.newClient(e)
		if err != nil {
			return finding{health: Dead, reason: err.Error()}
		}
		e.client = client
	}
	resp, err := p.status(ctx, e.client)
	f := judge(resp, err)
	if unauthenticated(err) {
		f = examineStranger(ctx, e.client)
	}
	switch {
	case f.health == Dead:
		// A new connection next time: the old one would hold back its next attempt, and report the error of an earlier one.
		_ = e.client.Close()
		e.client = nil
	case fresh:
		client := e.client
		p.watch.Go(func() { p.watchLoss(e, client) })
	}
	return f
}

// status calls Maintenance.Status as the proxy's own user, if it has one and etcd asks for it.
func (p *Pool) status(ctx context.Context, client *grpc.ClientConn) (*pb.StatusResponse, error) {
	call := func(token string) (*pb.StatusResponse, error) {
		return pb.NewMaintenanceClient(client).Status(withToken(ctx, token), &pb.StatusRequest{})
	}
	old := p.tokens.cached()
	resp, err := call(old)
	if !unauthenticated(err) || p.cfg.Auth.Username == "" {
		return resp, err
	}
	p.Invalidate(old)
	token, tokenErr := p.Token(ctx)
	if tokenErr != nil {
		return nil, err // the endpoint can still be judged without a token
	}
	return call(token)
}

// judge tells an endpoint's health by its answer to Status.
func judge(resp *pb.StatusResponse, err error) finding {
	if err != nil {
		return finding{health: Dead, reason: describe(err)}
	}
	f := finding{
		health:  Healthy,
		version: resp.Version,
		member:  resp.Header.GetMemberId(),
		cluster: resp.Header.GetClusterId(),
		leads:   resp.Leader != 0 && resp.Leader == resp.Header.GetMemberId(),
		alarms:  resp.Errors,
		size:    resp.DbSize,
		inUse:   resp.DbSizeInUse,
		quota:   resp.DbSizeQuota,
	}
	switch {
	case resp.IsLearner:
		f.health, f.reason = Learner, "it is a learner"
	case resp.Leader == 0:
		f.health, f.reason = Leaderless, "it has no leader"
	}
	return f
}

// examineStranger tells an endpoint's health without the right to ask for its status, from checks that etcd makes before it looks at who calls
// (server/etcdserver/api/v3rpc/interceptor.go): a learner refuses the call, and a member without leader does since the call asks for one.
func examineStranger(ctx context.Context, client *grpc.ClientConn) finding {
	ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	_, err := pb.NewClusterClient(client).MemberList(ctx, &pb.MemberListRequest{})
	switch known := rpctypes.Error(err); {
	case err == nil || unauthenticated(err):
		return finding{health: Healthy}
	case errors.Is(known, rpctypes.ErrNoLeader):
		return finding{health: Leaderless, reason: "it has no leader"}
	case errors.Is(known, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)):
		return finding{health: Learner, reason: "it is a learner"}
	}
	return finding{health: Dead, reason: describe(err)}
}

// unauthenticated says whether etcd is alive but does not know, or does not like, who calls.
func unauthenticated(err error) bool {
	known := rpctypes.Error(err)
	for _, refusal := range []error{
		rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed,
	} {
		if errors.Is(known, refusal) {
			return true
		}
	}
	return false
}

// describe puts a call's error in a few words.
func describe(err error) string {
	s := status.Convert(err)
	return fmt.Sprintf("%s: %s", s.Code(), s.Message())
}

// newClient returns a gRPC client of one endpoint. It connects at its first call.
func (p *Pool) newClient(e *endpoint) (*grpc.ClientConn, error) {
	if p.base.Err() != nil {
		return nil, errors.New("connecting to etcd: the pool is closed")
	}
	client, err := grpc.NewClient("passthrough:///"+e.target,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return p.dial(ctx, e.network, e.target)
		}),
		grpc.WithTransportCredentials(p.Credentials()),
		grpc.WithAuthority(e.authority()),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd: %w", err)
	}
	return client, nil
}

// watchLoss asks for a probe whenever a probe's connection breaks. It ends with the client or the pool.
func (p *Pool) watchLoss(e *endpoint, client *grpc.ClientConn) {
	for {
		state := client.GetState()
		if state == connectivity.Shutdown || !client.WaitForStateChange(p.base, state) {
			return
		}
		if state == connectivity.Ready && client.GetState() != connectivity.Shutdown {
			e.nudge()
		}
	}
}

// disconnect closes the probe's connection.
func (e *endpoint) disconnect() error {
	e.probing.Lock()
	defer e.probing.Unlock()
	if e.client == nil {
		return nil
	}
	err := e.client.Close()
	e.client = nil
	return err
}
