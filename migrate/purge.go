package migrate

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Purged is what a purge did.
type Purged struct {
	Revision int64 // compacted at
	Members  []PurgedMember
}

// PurgedMember is one member's share.
type PurgedMember struct {
	Endpoint      string
	ID            uint64
	Leader        bool
	Before, After int64 // size of the database file
	Err           error // nil if it was defragmented
}

// Failed reports whether a member was left out.
func (p *Purged) Failed() bool {
	for _, m := range p.Members {
		if m.Err != nil {
			return true
		}
	}
	return false
}

// errUnhealthy says that a cluster is not whole. A member that is being defragmented does
// not answer, so that another one that is away could cost the quorum.
var errUnhealthy = errors.New("not every member of the cluster is there and healthy; nothing more is defragmented")

// Purge compacts at the current revision, which ends etcd's history, and defragments
// every member, one at a time and the leader last, which writes its database file anew
// without what was removed. Before each one all members have to be healthy.
func (e *Engine) Purge(ctx context.Context, cluster clientv3.Cluster) (*Purged, error) {
	if e.Maintenance == nil {
		return nil, errors.New("purging: there is no access to etcd's maintenance")
	}
	members, err := e.members(ctx, cluster)
	if err != nil {
		return nil, fmt.Errorf("purging: %w", err)
	}
	now, err := e.KV.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return nil, fmt.Errorf("purging: %w", err)
	}
	purged := &Purged{Revision: now.Header.Revision}
	if _, err := e.KV.Compact(ctx, purged.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return nil, fmt.Errorf("purging: compacting at revision %d: %w", purged.Revision, err)
	}
	left := members
	for len(left) > 0 {
		if members, err = e.members(ctx, cluster); err != nil {
			return purged, fmt.Errorf("purging: %w", err)
		}
		next := choose(left, members)
		m := PurgedMember{Endpoint: left[next].Endpoint, ID: left[next].ID}
		for _, current := range members {
			if current.ID == m.ID {
				m.Leader, m.Before = current.Leader, current.Before
			}
		}
		if _, m.Err = e.Maintenance.Defragment(ctx, m.Endpoint); m.Err == nil {
			var after *clientv3.StatusResponse
			if after, m.Err = e.Maintenance.Status(ctx, m.Endpoint); m.Err == nil {
				m.After = after.DbSize
			}
		}
		purged.Members = append(purged.Members, m)
		left = append(left[:next:next], left[next+1:]...)
		if m.Err != nil {
			return purged, fmt.Errorf("purging: defragmenting %s: %w", m.Endpoint, m.Err)
		}
	}
	return purged, nil
}

// choose returns which of those left comes next: the one that leads now comes last.
func choose(left, members []PurgedMember) int {
	for i, l := range left {
		leads := false
		for _, m := range members {
			leads = leads || m.ID == l.ID && m.Leader
		}
		if !leads {
			return i
		}
	}
	return 0
}

// members asks every member for its state. The error says who is not healthy.
func (e *Engine) members(ctx context.Context, cluster clientv3.Cluster) ([]PurgedMember, error) {
	list, err := cluster.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing members: %w", err)
	}
	found, asked := map[uint64]PurgedMember{}, map[string]bool{}
	var errs []error
	ask := func(endpoint string) {
		if asked[endpoint] { // one that does not answer is waited for once
			return
		}
		asked[endpoint] = true
		bounded, cancel := context.WithTimeout(ctx, e.Timeout)
		defer cancel()
		status, err := e.Maintenance.Status(bounded, endpoint)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", endpoint, err))
		case status.Leader == 0:
			errs = append(errs, fmt.Errorf("%s has no leader", endpoint))
		default:
			id := status.Header.MemberId
			if _, ok := found[id]; !ok {
				found[id] = PurgedMember{Endpoint: endpoint, ID: id, Leader: status.Leader == id, Before: status.DbSize}
			}
		}
	}
	for _, endpoint := range e.Endpoints {
		ask(endpoint)
	}
	var members []PurgedMember
	for _, m := range list.Members {
		for _, url := range m.ClientURLs {
			if _, ok := found[m.ID]; !ok {
				ask(url)
			}
		}
		if one, ok := found[m.ID]; ok {
			members = append(members, one)
		} else {
			errs = append(errs, fmt.Errorf("member %x (%s) cannot be reached", m.ID, m.Name))
		}
	}
	if len(members) < len(list.Members) {
		return nil, fmt.Errorf("%w: %w", errUnhealthy, errors.Join(errs...))
	}
	return members, nil
}
