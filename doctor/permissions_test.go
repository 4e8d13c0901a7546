package doctor

import (
	"os"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/config"
)

// A real etcd with authentication: what a user may do is found out without writing.
func TestPermissions(t *testing.T) {
	l := newLab(t)
	password := filepath.Join(l.dir, "password")
	as := func(user string) Config {
		if err := os.WriteFile(password, []byte("pw"), 0o600); err != nil {
			t.Fatal(err)
		}
		return l.patient(func(c *config.Config) {
			if user != "" {
				c.Etcd.Auth = config.EtcdAuth{Username: user, PasswordFile: password}
			}
		})
	}
	check := func(d *doctor) check { return d.permissions }
	found := runAfterMembers(t, as(""), check)
	wants(t, found, Permissions, OK, "reading "+prefix, "allowed")
	wantsNot(t, found, Permissions, Warning, "authentication is off")
	wants(t, runAfterMembers(t, as("all"), check), Permissions, Warning, "login", "authentication is off")

	l.roles(map[string][]grant{
		"all":    {{prefix, readWrite}, {"/etcdseal/", readWrite}},
		"reader": {{prefix, readWrite}, {"/etcdseal/", read}},
		"keys":   {{"/etcdseal/", readWrite}},
		"none":   nil,
	})
	before := l.server.Server.KV().Rev()
	for _, r := range []struct {
		user  string
		level Level
		texts []string
	}{
		{"all", OK, []string{"login", "as all"}},
		{"all", OK, []string{"reading " + prefix, "allowed"}},
		{"all", OK, []string{"reading /etcdseal/", "allowed"}},
		{"all", OK, []string{"writing /etcdseal/", "allowed"}},
		{"reader", OK, []string{"reading /etcdseal/"}},
		{"reader", Problem, []string{"writing /etcdseal/", "no data key can be made", "grant-permission"}},
		{"keys", Warning, []string{"reading " + prefix, "serve can", "grant-permission"}},
		{"none", Problem, []string{"reading /etcdseal/", "cannot be read"}},
		{"nobody", Problem, []string{"login", "etcdctl user get nobody"}},
		{"", Problem, []string{"reading /etcdseal/", "wants a user"}},
	} {
		found := runAfterMembers(t, as(r.user), check)
		wants(t, found, Permissions, r.level, r.texts...)
		if r.user == "all" && Worst(found) != OK {
			t.Errorf("as all: %s", shown(found))
		}
	}
	if after := l.server.Server.KV().Rev(); after != before {
		t.Errorf("the revision was %d and is %d", before, after)
	}

	// Without space nobody can tell.
	_, err := l.server.Server.Alarm(t.Context(), &pb.AlarmRequest{MemberID: uint64(l.server.Server.MemberID()), Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, runAfterMembers(t, as("all"), check), Permissions, Unknown, "writing /etcdseal/", "takes no writes")
}

const (
	readWrite = clientv3.PermissionType(clientv3.PermReadWrite)
	read      = clientv3.PermissionType(clientv3.PermRead)
)

type grant struct {
	prefix string
	kind   clientv3.PermissionType
}

// roles makes users with the password "pw", a role for each, and switches authentication
// on.
func (l *lab) roles(users map[string][]grant) {
	l.Helper()
	ctx := l.Context()
	do := func(_ any, err error) {
		l.Helper()
		if err != nil {
			l.Fatal(err)
		}
	}
	for user, grants := range users {
		do(l.client.RoleAdd(ctx, user))
		do(l.client.UserAdd(ctx, user, "pw"))
		do(l.client.UserGrantRole(ctx, user, user))
		for _, g := range grants {
			do(l.client.RoleGrantPermission(ctx, user, g.prefix, clientv3.GetPrefixRangeEnd(g.prefix), g.kind))
		}
	}
	do(l.client.RoleAdd(ctx, "root"))
	do(l.client.UserAdd(ctx, "root", "pw"))
	do(l.client.UserGrantRole(ctx, "root", "root"))
	do(l.client.AuthEnable(ctx))
}
