package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/e2e/etcdseal"
	"github.com/etcdseal/etcdseal/e2e/poll"
	"github.com/etcdseal/etcdseal/e2e/process"
)

// command is one run of etcdctl. In its arguments and its input, {name} stands for
// what an earlier command's catch has found on the same side.
type command struct {
	args  string // split at blanks; + stands for a blank
	input string
	catch string // an expression whose group goes by the name in front of its colon
	fails bool
	// unordered is set where etcd lists members: their ids, which are random, order them.
	unordered bool
}

// TestEtcdctl gives the same commands to an etcd and to an etcdseal in front of
// another one. What etcdctl prints, and whether it succeeds, must be the same, but for
// what no two etcds have in common.
func TestEtcdctl(t *testing.T) {
	direct, through := newControls(t)
	for _, group := range []struct {
		name     string
		commands []command
	}{
		{"keys under a rule", keyCommands(etcdseal.SecretsPrefix)},
		{"other keys", append(keyCommands("/registry/configmaps/"), valueCommands("/registry/configmaps/")...)},
		{"leases", leaseCommands()},
		{"locks", lockCommands()},
		{"maintenance", maintenanceCommands()},
		{"members", memberCommands()},
		{"users", userCommands()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.commands {
				want, got := direct.run(t, c), through.run(t, c)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("etcdctl %s (-etcd +etcdseal):\n%s", c.args, diff)
				}
				if want.Failed != c.fails {
					t.Errorf("etcdctl %s: failed %v with etcd itself, want %v: %s%s", c.args, want.Failed, c.fails, want.Out, want.Error)
				}
			}
		})
	}
	t.Run("watch", func(t *testing.T) { compareRunning(t, direct, through, watchScript) })
	t.Run("elect", func(t *testing.T) { compareRunning(t, direct, through, electScript) })
	t.Run("snapshot", func(t *testing.T) { compareSnapshots(t, direct, through) })
}

// keyCommands put, get, delete and compare revisions under a prefix.
func keyCommands(p string) []command {
	lines := func(l ...string) string { return strings.ReplaceAll(strings.Join(l, "\n"), "{p}", p) + "\n" }
	commands := []command{
		{args: "put {p}a one"},
		{args: "put {p}a two --prev-kv"},
		{args: "put {p}b", input: "from the input"},
		{args: "put {p}c+with+blanks +"},
		{args: "put {p}a --ignore-value --prev-kv"},
		{args: "get {p}a"},
		{args: "get {p}a -w=json"},
		{args: "get {p}a -w=fields"},
		{args: "get {p}a --hex"},
		{args: "get {p}a --print-value-only"},
		{args: "get {p}none"},
		{args: "get {p} --prefix"},
		{args: "get {p} --prefix -w=json"},
		{args: "get {p} --prefix --keys-only"},
		{args: "get {p} --prefix --count-only -w=fields"},
		{args: "get {p} --prefix --limit=2"},
		{args: "get {p}b --from-key"},
		{args: "get {p}a {p}c"},
		{args: "get {p}a --consistency=s"},
		{args: "get {p}a --rev=2"},
		{args: "get {p}a --rev=999999", fails: true},
		{args: "txn -w=json", input: lines(`create("{p}t") = "0"`, "", "put {p}t new", "get {p}a", "", "get {p}t", "")},
		{args: "txn -w=json", input: lines(`create("{p}t") = "0"`, `ver("{p}a") > "1"`, "", "put {p}t no", "", "get {p}t", "del {p}b", "")},
		{args: "txn", input: lines(`mod("{p}t") > "0"`, "", `put {p}t "and again"`, "get --prefix {p}", "", "", "")},
		{args: "txn", input: lines("", "put {p}t 1", "put {p}t 2", "", "", ""), fails: true},
		{args: "del {p}b --prev-kv"},
		{args: "del {p}b"},
		{args: "del {p}c --from-key --prev-kv -w=json"},
		{args: "get {p} --prefix"},
		{args: "put", fails: true},
	}
	for _, by := range []string{"key", "version", "create", "modify"} {
		for _, order := range []string{"ascend", "descend"} {
			commands = append(commands, command{args: "get {p} --prefix --limit=2 --sort-by=" + by + " --order=" + order})
		}
	}
	for i := range commands {
		commands[i].args = strings.ReplaceAll(commands[i].args, "{p}", p)
	}
	return commands
}

// valueCommands compare and sort by value.
func valueCommands(p string) []command {
	return []command{
		{args: "put " + p + "v2 b"},
		{args: "put " + p + "v1 c"},
		{args: "put " + p + "v3 a"},
		{args: "get " + p + "v --prefix --sort-by=value --order=descend --limit=2"},
		{args: "txn", input: fmt.Sprintf("val(%q) = \"c\"\n\nput %s c\n\n\n\n", p+"v1", p+"v4")},
		{args: "txn", input: fmt.Sprintf("val(%q) > \"c\"\n\nput %s c\n\nget %s\n\n", p+"v1", p+"v4", p+"v1")},
	}
}

func leaseCommands() []command {
	const key = etcdseal.SecretsPrefix + "leased"
	return []command{
		{args: "lease grant 1000", catch: `lease:lease ([0-9a-f]+) granted`},
		{args: "put " + key + " secret --lease={lease}"},
		{args: "get " + key + " -w=json"},
		{args: "put " + key + " --ignore-lease other"},
		{args: "lease list"},
		{args: "lease timetolive {lease} --keys"},
		{args: "lease keep-alive {lease} --once"},
		{args: "lease revoke {lease}"},
		{args: "get " + key},
		{args: "lease timetolive {lease}"},
		{args: "lease revoke {lease}", fails: true},
		{args: "lease keep-alive {lease} --once", fails: true},
		{args: "put " + key + " x --lease={lease}", fails: true},
	}
}

// lockCommands run a command that sees whether it has the lock.
func lockCommands() []command {
	const name = etcdseal.SecretsPrefix + "lock"
	return []command{
		{args: "lock " + name + " -- sh -c echo+$ETCD_LOCK_KEY+at+$ETCD_LOCK_REV"},
		{args: "lock " + name + " -- sh -c exit+3", fails: true},
		{args: "get --prefix --keys-only " + name},
	}
}

func maintenanceCommands() []command {
	return []command{
		{args: "version"},
		{args: "endpoint health"},
		{args: "endpoint health -w=json"},
		{args: "endpoint status"},
		{args: "endpoint status -w=json"},
		{args: "endpoint hashkv"},
		{args: "alarm list"},
		{args: "alarm disarm"},
		{args: "defrag"},
		{args: "compaction 10"},
		{args: "compaction 10", fails: true},
		{args: "compaction 999999", fails: true},
		{args: "get a --rev=3", fails: true},
		{args: "downgrade validate 3.6"},
		{args: "downgrade cancel"},
		{args: "move-leader 1234", fails: true},
	}
}

// memberCommands add a member that does not vote, and take it away.
func memberCommands() []command {
	return []command{
		{args: "member list"},
		{args: "member list -w=json"},
		{args: "member add another --learner --peer-urls=http://127.0.0.1:1", catch: `member:Member +([0-9a-f]+) added`, unordered: true},
		{args: "member list", unordered: true},
		{args: "member promote {member}", fails: true},
		{args: "member update {member} --peer-urls=http://127.0.0.1:2"},
		{args: "member remove {member}"},
		{args: "member remove {member}", fails: true},
		{args: "member list"},
	}
}

// userCommands leave authentication off.
func userCommands() []command {
	const key = etcdseal.SecretsPrefix + "guarded"
	return []command{
		{args: "put " + key + " secret"},
		{args: "user add root:pass"},
		{args: "user add reader:pass"},
		{args: "user add reader:pass", fails: true},
		{args: "role add readers"},
		{args: "role grant-permission readers read " + key},
		{args: "role get readers"},
		{args: "user grant-role reader readers"},
		{args: "user grant-role root root"},
		{args: "user get reader --detail"},
		{args: "user list"},
		{args: "role list"},
		{args: "auth status"},
		{args: "auth enable"},
		{args: "get " + key, fails: true},
		{args: "get " + key + " --user=reader:wrong", fails: true},
		{args: "get " + key + " --user=reader:pass"},
		{args: "put " + key + " x --user=reader:pass", fails: true},
		{args: "put " + key + " changed --prev-kv --user=root:pass"},
		{args: "get " + key + " --user=root:pass"},
		{args: "auth disable --user=root:pass"},
		{args: "get " + key},
	}
}

// control is etcdctl with one endpoint.
type control struct {
	*side
	binary   string
	endpoint string
	caught   map[string]string
}

// outcome is what etcdctl printed, without what differs between any two etcds.
type outcome struct {
	Out, Error string
	Failed     bool
}

func newControls(t *testing.T) (direct, through *control) {
	t.Helper()
	a, b := newSides(t, "")
	waitStorageVersions(t, a, b)
	return newControl(a), newControl(b)
}

// waitStorageVersions waits for what an etcd only knows some seconds after its start, and
// shows in its status.
func waitStorageVersions(t *testing.T, sides ...*side) {
	t.Helper()
	for _, s := range sides {
		poll.Until(t, settleLimit, "etcd to know the version of its storage", func(ctx context.Context) error {
			status, err := etcdserverpb.NewMaintenanceClient(s.behind).Status(ctx, &etcdserverpb.StatusRequest{})
			if err == nil && status.StorageVersion == "" {
				err = errors.New("it does not say any")
			}
			return err
		})
	}
}

func newControl(s *side) *control {
	return &control{side: s, binary: filepath.Join(s.lab.binaries, "etcdctl"), endpoint: "http://" + s.conn.Target(), caught: map[string]string{}}
}

// run runs etcdctl to its end.
func (c *control) run(t *testing.T, cmd command) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	child := exec.CommandContext(ctx, c.binary, c.arguments(cmd.args)...)
	child.Env = []string{"PATH=" + os.Getenv("PATH")}
	var out, errors bytes.Buffer
	child.Stdin, child.Stdout, child.Stderr = strings.NewReader(c.replace(cmd.input)), &out, &errors
	err := child.Run()
	if ended(err) == nil && err != nil {
		t.Fatalf("running etcdctl %s on the side of %s: %v", cmd.args, c.name, err)
	}
	c.take(t, cmd, out.String())
	o := outcome{normal(out.String()), normal(withoutLogs(errors.String())), err != nil}
	if cmd.unordered {
		words := strings.FieldsFunc(o.Out, func(r rune) bool { return strings.ContainsRune("\n,\"", r) })
		slices.Sort(words)
		o.Out = strings.Join(words, "\n")
	}
	return o
}

// ended is the state of a program that ran and was not content.
func ended(err error) *exec.ExitError {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit
	}
	return nil
}

func (c *control) arguments(text string) []string {
	list := []string{"--endpoints=" + c.endpoint}
	for _, word := range strings.Fields(text) {
		list = append(list, strings.ReplaceAll(c.replace(word), "+", " "))
	}
	return list
}

func (c *control) replace(text string) string {
	for name, value := range c.caught {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// take keeps what a command's output says for those that follow.
func (c *control) take(t *testing.T, cmd command, out string) {
	t.Helper()
	if cmd.catch == "" {
		return
	}
	name, expression, _ := strings.Cut(cmd.catch, ":")
	found := regexp.MustCompile(expression).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("etcdctl %s on the side of %s printed no %s: %s", cmd.args, c.name, name, out)
	}
	c.caught[name] = found[1]
}

// differing is what no two etcds, or two runs, have in common. Revisions are not in it.
var differing = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`"(cluster_id|member_id|ID|leader|lease|raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|hash)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"(ClusterID|MemberID|Raft[A-Za-z]*|Lease)" : \d+`), `"$1" : N`},
	// After the numbers with names: a decimal one may have as many digits as an id.
	{regexp.MustCompile(`\b[0-9a-f]{12,16}\b`), "ID"},
	{regexp.MustCompile(`[0-9.]+ ?(µs|ms|s)\b`), "TIME"},
	{regexp.MustCompile(`remaining\([0-9a-z]+\)`), "remaining(TIME)"},
	{regexp.MustCompile(`[0-9.]+ [kM]B`), "SIZE"},
	{regexp.MustCompile(`\b[0-9]+%`), "SHARE"},
	{regexp.MustCompile(`(ADDRESS, ID, 3\.[0-9.]+, [0-9.]*, [^\n]*true, false, )\d+, \d+, \d+`), "${1}TERM, INDEX, INDEX"},
	{regexp.MustCompile(`(http://ADDRESS, )\d+(, \d+)`), "${1}HASH$2"},
}

func normal(text string) string {
	for _, d := range differing {
		text = d.find.ReplaceAllString(text, d.with)
	}
	return text
}

// withoutLogs leaves out what etcdctl's client logs: lines of JSON.
func withoutLogs(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// running is an etcdctl that does not end by itself, what is done meanwhile, and the
// text that it prints last.
type running struct {
	before    []command
	args      string
	ready     string // printed before meanwhile may begin; empty: nothing is
	meanwhile []command
	last      string
}

var watchScript = running{
	before: []command{{args: "put " + etcdseal.SecretsPrefix + "w0 start -w=json", catch: `rev:"revision":(\d+)`}},
	args:   "watch " + etcdseal.SecretsPrefix + "w --prefix --prev-kv --rev={rev}",
	ready:  "start\n",
	meanwhile: []command{
		{args: "put " + etcdseal.SecretsPrefix + "w1 one"},
		{args: "put " + etcdseal.SecretsPrefix + "w1 two"},
		{args: "del " + etcdseal.SecretsPrefix + "w1"},
		{args: "put " + etcdseal.SecretsPrefix + "w2 the+end"},
	},
	last: "the end\n",
}

var electScript = running{
	args:  "elect " + etcdseal.SecretsPrefix + "election proposal",
	last:  "proposal\n",
	ready: "proposal\n",
	meanwhile: []command{
		{args: "get " + etcdseal.SecretsPrefix + "election --prefix"},
	},
}

// compareRunning runs a script on both sides. The commands meanwhile, and what was
// printed in all, must be the same.
func compareRunning(t *testing.T, direct, through *control, r running) {
	t.Helper()
	want, got := direct.script(t, r), through.script(t, r)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("etcdctl %s (-etcd +etcdseal):\n%s", r.args, diff)
	}
}

func (c *control) script(t *testing.T, r running) []outcome {
	t.Helper()
	var outcomes []outcome
	for _, cmd := range r.before {
		outcomes = append(outcomes, c.run(t, cmd))
	}
	log := process.NewLog(t, "etcdctl of "+c.name)
	child := process.Start(t, process.Config{Path: c.binary, Args: c.arguments(r.args), Log: log})
	printed := func(want string) {
		t.Helper()
		child.WaitFor(t, callLimit, "etcdctl to print "+want, func(context.Context) error {
			if text := log.Text(t); !strings.HasSuffix(text, want) {
				return fmt.Errorf("it has printed %q", text)
			}
			return nil
		})
	}
	if r.ready != "" {
		printed(r.ready)
	}
	for _, cmd := range r.meanwhile {
		outcomes = append(outcomes, c.run(t, cmd))
	}
	printed(r.last)
	child.Signal(t, syscall.SIGINT)
	child.Wait(t, callLimit)
	return append(outcomes, outcome{Out: normal(withoutLogs(log.Text(t)))})
}

// compareSnapshots takes a snapshot on both sides. Through etcdseal it has as many
// keys, at the same revision, and holds ciphertext.
func compareSnapshots(t *testing.T, direct, through *control) {
	t.Helper()
	const secret = "no snapshot holds this"
	var stats []string
	for _, c := range []*control{direct, through} {
		if o := c.run(t, command{args: "put " + etcdseal.SecretsPrefix + "snapshot " + strings.ReplaceAll(secret, " ", "+")}); o.Failed {
			t.Fatalf("putting: %s", o.Error)
		}
		file := filepath.Join(t.TempDir(), "snapshot.db")
		if o := c.run(t, command{args: "snapshot save " + file}); o.Failed {
			t.Fatalf("saving a snapshot of %s: %s", c.name, o.Error)
		}
		out := process.Run(t, callLimit, filepath.Join(c.lab.binaries, "etcdutl"), "snapshot", "status", file)
		fields := strings.Split(out, ", ")
		if len(fields) < 4 {
			t.Fatalf("the snapshot's status is %q", out)
		}
		stats = append(stats, strings.Join(fields[1:3], ", ")) // without hash and size
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if holds := process.Holds(data, secret) != ""; holds != (c == direct) {
			t.Errorf("the snapshot of %s holds the plaintext: %v", c.name, holds)
		}
	}
	if stats[0] != stats[1] {
		t.Errorf("snapshots of etcd and etcdseal have revision and keys %q", stats)
	}
}
