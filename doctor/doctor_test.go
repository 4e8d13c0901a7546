package doctor

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/kek"
)

// With an etcdseal that has nothing wrong, each finding says so, and nothing in etcd is
// another than before.
func TestExamineFindsNothingWrong(t *testing.T) {
	l := newLab(t)
	l.put(prefix+"empty", "")
	before := l.everything()
	found := Examine(t.Context(), l.patient())
	for _, f := range found {
		if f.Level != OK {
			t.Errorf("%+v", f)
		}
	}
	areas := map[Area]bool{}
	for _, f := range found {
		areas[f.Area] = true
	}
	for _, area := range []Area{Configuration, Process, Etcd, Permissions, KEKs, Keyring, Rules, Requests} {
		if !areas[area] {
			t.Errorf("nothing is found about %s", area)
		}
	}
	if level := Worst(found); level != OK {
		t.Errorf("the worst is %s", level)
	}
	after := l.everything()
	if before.Header.Revision != after.Header.Revision {
		t.Errorf("the revision was %d and is %d", before.Header.Revision, after.Header.Revision)
	}
	if diff := cmp.Diff(before.Count, after.Count); diff != "" {
		t.Errorf("keys differ: %s", diff)
	}
}

func (l *lab) everything() *clientv3.GetResponse {
	l.Helper()
	answer, err := l.client.Get(l.Context(), "", clientv3.WithFromKey())
	if err != nil {
		l.Fatal(err)
	}
	return answer
}

// An etcd that does not answer, one that takes connections and says nothing, and a KEK that
// hangs: each is found, in bounded time, and hides nothing of the others.
func TestExamineGoesOn(t *testing.T) {
	l := newLab(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	dead := "unix://" + l.dir + "/none.sock"
	p := open(t, l.dir, settings(t, l.dir, l.endpoint, dead, "http://"+silent.Addr().String()))
	p.Timeout, p.KEKTimeout = 10*time.Second, 5*time.Second // of those that answer none needs that long
	fake(p, "r").Block(kek.OpWrap)
	found := Examine(t.Context(), p)
	wants(t, found, Etcd, Problem, dead, "does not answer")
	wants(t, found, Etcd, Problem, silent.Addr().String(), "does not answer")
	wants(t, found, Etcd, OK, l.endpoint, "version 3.7")
	wants(t, found, KEKs, Problem, "r", "does not wrap", "unavailable")
	wants(t, found, KEKs, OK, "k", "wraps and unwraps")
	wants(t, found, Rules, OK, prefix, "0 keys")
	wants(t, found, Keyring, OK, "0 records")
	wants(t, found, Requests, OK, "limits.maxRequestBytes")
}

// Without etcd, what can be looked at without it is.
func TestExamineWithoutEtcd(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, settings(t, dir, "unix://"+dir+"/none.sock"))
	found := Examine(t.Context(), p)
	wants(t, found, Etcd, Problem, "none.sock")
	for _, area := range []Area{Permissions, Keyring, Rules, Requests} {
		wants(t, found, area, Unknown, "no endpoint of etcd can be used")
	}
	wants(t, found, KEKs, OK, "k", "wraps and unwraps")

	p = open(t, dir, settings(t, dir, "unix://"+dir+"/none.sock"))
	p.Etcd, p.Client, p.EtcdErr, p.Store, p.StoreErr = nil, nil, errTest, nil, errTest
	found = Examine(t.Context(), p)
	wants(t, found, Etcd, Problem, "cannot be asked")
	wants(t, found, Keyring, Problem, "cannot be opened")
	wants(t, found, KEKs, OK, "k", "wraps and unwraps")
}

// A configuration that says nothing that can be used gives findings.
func TestExamineBrokenConfiguration(t *testing.T) {
	_, err := config.Parse([]byte("listen: 3\nmore: 1\n"), "/")
	found := Examine(t.Context(), Config{File: "etcdseal.yaml", Err: err, Host: Host{Known: true}})
	wants(t, found, Configuration, Problem, "more", "unknown field")
	wants(t, found, Configuration, Problem, "keyring", "missing")
	wants(t, found, Configuration, Unknown, "everything else", "not looked at")
	wants(t, found, Process, OK, "memory")
	if Worst(found) != Problem {
		t.Error("it is no problem")
	}
}

// A rule over the keyring's own prefix is found before anything is asked.
func TestExamineReservedPrefix(t *testing.T) {
	const text = "listen: {address: \"unix:///s.sock\"}\netcd: {endpoints: [\"http://10.0.0.4:2379\"]}\nkeks: {k: {local: {keyFile: kek.key}}}\nkeyring: {name: test}\n"
	for rules, want := range map[string]bool{"rules: [{prefix: /registry/}]": false, "rules: [{prefix: /etcdseal/dek/}]": true, "rules: [{prefix: /}]": true} {
		_, err := config.Parse([]byte(text+rules), "/")
		found := run(t, Config{File: "etcdseal.yaml", Err: err}, func(d *doctor) check { return d.configuration })
		if finds(found, Configuration, Problem, "rules[0].prefix", "overlaps the keyring's reserved prefix") != want {
			t.Errorf("%s:\n%s", rules, shown(found))
		}
	}
}

var errTest = errors.New("the test said so")

func TestWorst(t *testing.T) {
	for _, r := range []struct {
		levels []Level
		want   Level
	}{
		{nil, OK}, {[]Level{OK, Unknown}, Unknown}, {[]Level{Warning, Unknown}, Warning}, {[]Level{Warning, Problem, OK}, Problem},
	} {
		var found []Finding
		for _, level := range r.levels {
			found = append(found, Finding{Level: level})
		}
		if got := Worst(found); got != r.want {
			t.Errorf("%v: got %s, want %s", r.levels, got, r.want)
		}
	}
}

func TestProcess(t *testing.T) {
	for name, r := range map[string]struct {
		host  Host
		level Level
		text  string
	}{
		"hardened":        {Host{Known: true}, OK, "no core file"},
		"dumpable":        {Host{Known: true, Dumpable: true}, Problem, "core file"},
		"core files":      {Host{Known: true, CoreLimit: 1}, Problem, "core file"},
		"not Linux":       {Host{}, Unknown, "only Linux"},
		"harmless":        {Host{Known: true, Godebug: "http2client=0,fips140=only"}, OK, "nothing that logs keys"},
		"weak":            {Host{Known: true, Godebug: "madvdontneed=1,tlsrsakex=1"}, Warning, "tlsrsakex=1 weakens TLS"},
		"weak turned off": {Host{Known: true, Godebug: "tlsrsakex=0"}, OK, "nothing that logs keys"},
	} {
		t.Run(name, func(t *testing.T) {
			found := run(t, Config{Host: r.host}, func(d *doctor) check { return d.process })
			wants(t, found, Process, r.level, r.text)
			if len(found) != 2 {
				t.Errorf("%d findings, want 2:\n%s", len(found), shown(found))
			}
		})
	}
}
