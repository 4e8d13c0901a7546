package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
)

const (
	// refusalTerm is how long a failed login is not tried again, if it was refused or if there is an old token: each costs etcd a bcrypt comparison.
	refusalTerm = 10 * time.Second
	// freshTerm is how old a token may be that Token returns: etcd's JSON web tokens cannot be used for ever (by default for five minutes), and a new
	// connection whose first call is refused is of no use.
	freshTerm = time.Minute
)

// tokens holds the token of the proxy's own user.
type tokens struct {
	mu      sync.Mutex // guards what follows
	last    *login     // the last login that succeeded or was refused for good; nil after Invalidate
	pending *login     // the login that goes on now
}

// login is one call of Authenticate. Its results may be read when done is closed.
type login struct {
	done  chan struct{}
	token string
	err   error
	until time.Time // when another login is due: the token is old, or an err may be tried again. Pool.tokens.mu guards it once this is the last login
}

// cached returns the token of the last login, empty if there is none.
func (t *tokens) cached() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		return ""
	}
	return t.last.token
}

// Token returns a token for the proxy's own calls, to be sent as the metadata "token". It is empty when no user is configured or etcd has authentication
// switched off. A token is kept until Invalidate, but for no longer than a minute if a new one can be had; callers that need one at the same time share one
// call of Authenticate, which goes on when one of them leaves. A wrong password is not tried again for ten seconds, and neither is a new token that cannot
// be had while there is an old one.
func (p *Pool) Token(ctx context.Context) (string, error) {
	if p.cfg.Auth.Username == "" {
		return "", nil
	}
	l := p.login()
	select {
	case <-l.done:
		return l.token, l.err
	case <-ctx.Done():
		return "", fmt.Errorf("authenticating with etcd: %w", context.Cause(ctx))
	}
}

// Invalidate makes the next Token authenticate anew, if token is still the one that it would return. Call it when etcd refuses a call because of its
// token (rpctypes.ErrInvalidAuthToken, ErrAuthOldRevision, ErrUserEmpty).
func (p *Pool) Invalidate(token string) {
	t := &p.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && t.last.err == nil && t.last.token == token {
		t.last = nil
	}
}

// login returns the login to wait for: the last one, the one that goes on, or a new one.
func (p *Pool) login() *login {
	t := &p.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && p.cfg.Now().Before(t.last.until) {
		return t.last
	}
	if t.pending != nil {
		return t.pending
	}
	l := &login{done: make(chan struct{})}
	t.pending = l
	p.watch.Go(func() {
		lasting := p.authenticate(l)
		t.mu.Lock()
		t.pending = nil
		switch old := t.last; {
		case l.err != nil && old != nil && old.err == nil: // perhaps the old token still serves
			l.token, l.err = old.token, nil
			old.until = p.cfg.Now().Add(refusalTerm)
		case lasting:
			t.last = l
		}
		t.mu.Unlock()
		close(l.done)
	})
	return l
}

// authenticate fills in a login by asking one endpoint after the other, the best first. It says whether the result is to be kept: a token is, a refusal for a
// while, a cluster that cannot be reached is not.
func (p *Pool) authenticate(l *login) (lasting bool) {
	var errs []error
	for _, e := range p.ranked() {
		token, err := p.askToken(e)
		switch known := rpctypes.Error(err); {
		case err == nil || errors.Is(known, rpctypes.ErrAuthNotEnabled):
			l.token, l.until = token, p.cfg.Now().Add(freshTerm)
			return true
		case errors.Is(known, rpctypes.ErrAuthFailed):
			l.err = fmt.Errorf("authenticating with etcd as %s: %w", p.cfg.Auth.Username, err)
			l.until = p.cfg.Now().Add(refusalTerm)
			return true
		}
		errs = append(errs, fmt.Errorf("authenticating with etcd %s as %s: %w", e.name, p.cfg.Auth.Username, err))
	}
	l.err = errors.Join(errs...)
	return false
}

// askToken calls Authenticate on one endpoint, over a connection of its own: it happens too rarely to keep one.
func (p *Pool) askToken(e *endpoint) (string, error) {
	password, err := readPassword(p.cfg.Auth.PasswordFile)
	if err != nil {
		return "", err
	}
	client, err := p.newClient(e)
	if err != nil {
		return "", err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(p.base, p.cfg.ProbeTimeout)
	defer cancel()
	resp, err := pb.NewAuthClient(client).Authenticate(ctx, &pb.AuthenticateRequest{Name: p.cfg.Auth.Username, Password: password})
	if err != nil {
		return "", err
	}
	return resp.Token, nil
}

// ranked returns the endpoints, the best first.
func (p *Pool) ranked() []*endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	ranked := slices.Clone(p.endpoints)
	slices.SortStableFunc(ranked, func(a, b *endpoint) int { return a.health.rank() - b.health.rank() })
	return ranked
}

// withToken adds a token to a call of the proxy's own.
func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}
