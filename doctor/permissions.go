package doctor

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/config"
)

// permissions finds out whether etcdseal may do in etcd what it has to.
func (d *doctor) permissions(ctx context.Context, n *notes) {
	c := d.Config.Config
	if !d.askable(n, Permissions, "all") {
		return
	}
	user := c.Etcd.Auth.Username
	bounded, cancel := context.WithTimeout(ctx, d.Timeout)
	token, err := d.Etcd.Token(bounded)
	cancel()
	switch {
	case err != nil:
		n.add(Permissions, Problem, "login", "see that etcd has the user (`etcdctl user get "+user+"`) and that etcd.auth.passwordFile holds its password", "%v", err)
		return
	case token != "":
		n.add(Permissions, OK, "login", "", "as %s", user)
	case user != "":
		n.add(Permissions, Warning, "login", "switch it on (`etcdctl auth enable`), or see that only etcdseal reaches etcd", "etcd's authentication is off, so that etcd.auth is not used: whoever reaches etcd may write to it")
	}
	for _, r := range c.Rules {
		d.mayRead(ctx, n, r.Prefix, Warning, "encrypt, reencrypt, decrypt and verify cannot work; serve can")
	}
	if c.Keyring.Store == config.StoreEtcd {
		d.mayRead(ctx, n, c.Keyring.Prefix, Problem, "the keyring cannot be read")
		if token != "" || c.Etcd.AllowClientCN {
			d.mayWrite(ctx, n, c.Keyring.Prefix)
		}
	}
}

// askable says whether there is an etcd to ask, and notes it if not.
func (d *doctor) askable(n *notes, area Area, subject string) bool {
	if len(d.usable) > 0 && d.Client != nil {
		return true
	}
	n.add(area, Unknown, subject, "see to the endpoints, and run this again", "not looked at, since no endpoint of etcd can be used")
	return false
}

// mayRead finds out whether everything under a prefix may be read.
func (d *doctor) mayRead(ctx context.Context, n *notes, prefix string, level Level, without string) {
	subject := "reading " + prefix
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	_, err := d.Client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	switch {
	case err == nil:
		n.add(Permissions, OK, subject, "", "allowed")
	case isEtcds(err, rpctypes.ErrPermissionDenied):
		n.add(Permissions, level, subject, "grant it: `etcdctl role grant-permission ROLE --prefix=true readwrite "+prefix+"`", "denied, so that %s", without)
	case isEtcds(err, rpctypes.ErrUserEmpty):
		n.add(Permissions, Problem, subject, "set etcd.auth", "etcd wants a user, and there is none in the configuration")
	default:
		n.add(Permissions, Unknown, subject, "see what etcd says, and run this again", "%v", err)
	}
}

// mayWrite finds out whether records may be written. Etcd looks at the permissions of a
// transaction before it looks at its comparisons; the one here is never true, since no key
// has a version under 0. So nothing is written and no revision is spent.
func (d *doctor) mayWrite(ctx context.Context, n *notes, prefix string) {
	subject := "writing " + prefix
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	first, last := prefix+"dek/"+"00000000000000000000000000000000", prefix+"dek/"+"ffffffffffffffffffffffffffffffff"
	answer, err := d.Client.Txn(ctx).If(clientv3.Compare(clientv3.Version(first), "<", 0)).
		Then(clientv3.OpPut(first, ""), clientv3.OpPut(last, "")).Commit()
	switch {
	case err == nil && !answer.Succeeded:
		n.add(Permissions, OK, subject, "", "allowed (by a transaction that is never carried out)")
	case isEtcds(err, rpctypes.ErrPermissionDenied):
		n.add(Permissions, Problem, subject, "grant it: `etcdctl role grant-permission ROLE --prefix=true readwrite "+prefix+"`", "denied, so that no data key can be made")
	case isEtcds(err, rpctypes.ErrNoSpace):
		n.add(Permissions, Unknown, subject, "end the alarm, and run this again", "not found out, since etcd takes no writes")
	default:
		n.add(Permissions, Unknown, subject, "see what etcd says, and run this again", "%v", err)
	}
}

// isEtcds says whether an error is one of etcd's, which the client wraps as it came when it
// made the call twice.
func isEtcds(err, known error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if errors.Is(rpctypes.Error(err), known) {
			return true
		}
	}
	return false
}
