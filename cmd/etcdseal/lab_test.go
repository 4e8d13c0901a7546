package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// limit bounds every wait of a script. It is there to end a test that hangs.
const limit = time.Minute

// labKey is where a script's lab is among its values.
type labKey struct{}

// lab is what one script has running: at most one etcd and one proxy.
type lab struct {
	dir    string
	env    *testscript.Env
	server *embed.Etcd
	etcd   string // URL
	proxy  *exec.Cmd
	lines  *log
	admin  string // host:port
	vault  *emulator.Vault
	azure  *emulator.Server // around vault
	// records are those of the keyring before they were edited, by etcd key.
	records map[string]string
}

func newLab(env *testscript.Env) *lab { return &lab{dir: env.WorkDir, env: env} }

// startEtcd starts an etcd on a socket in the script's directory; its URL is then
// in $ETCD.
func (l *lab) startEtcd(ts *testscript.TestScript, _ []string) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(l.dir, "etcd")
	cfg.LogLevel = "fatal"
	cfg.UnsafeNoFsync = true
	client := url.URL{Scheme: "unix", Path: filepath.Join(l.dir, "e.sock")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(l.dir, "p.sock")}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := embed.StartEtcd(cfg)
	ts.Check(err)
	l.env.Defer(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(limit):
		ts.Fatalf("etcd is not ready")
	}
	l.server, l.etcd = server, client.String()
	ts.Setenv("ETCD", l.etcd)
}

// startProxy starts `etcdseal serve` with a configuration file and waits until it
// serves. Its log goes to serve.log.
func (l *lab) startProxy(ts *testscript.TestScript, args []string) {
	path, err := exec.LookPath("etcdseal")
	ts.Check(err)
	cmd := exec.Command(path, "serve", "--config", args[0])
	cmd.Dir, cmd.Env = l.dir, os.Environ()
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	l.proxy, l.lines = cmd, readLog(stderr)
	l.env.Defer(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-l.lines.ended
		_ = cmd.Wait() // after a kill it is an error
	})
	var serving struct{ Admin string }
	ts.Check(json.Unmarshal([]byte(l.line(ts, `"msg":"serving"`)), &serving))
	l.admin = serving.Admin
}

// await waits for a line of the proxy's log that holds a text and was not awaited
// before, and prints it.
func (l *lab) await(ts *testscript.TestScript, args []string) {
	fmt.Fprintln(ts.Stdout(), l.line(ts, args[0]))
}

func (l *lab) line(ts *testscript.TestScript, text string) string {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		select {
		case line, ok := <-l.lines.lines:
			if !ok {
				ts.Fatalf("the log ended without %q:\n%s", text, l.lines.all())
			}
			if strings.Contains(line, text) {
				return line
			}
		case <-ctx.Done():
			ts.Fatalf("the log has no %q:\n%s", text, l.lines.all())
		}
	}
}

// signal sends the proxy a signal: HUP, INT or TERM.
func (l *lab) signal(ts *testscript.TestScript, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM}
	ts.Check(l.proxy.Process.Signal(signals[args[0]]))
}

// ended waits until the proxy has ended and compares its exit status.
func (l *lab) ended(ts *testscript.TestScript, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	select {
	case <-l.lines.ended:
	case <-time.After(limit):
		ts.Fatalf("the proxy does not end:\n%s", l.lines.all())
	}
	_ = l.proxy.Wait() // the status below says the same
	if got := l.proxy.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit status %d, want %d:\n%s", got, want, l.lines.all())
	}
}

// ready waits until /readyz answers 200.
func (l *lab) ready(ts *testscript.TestScript, _ []string) { l.awaitReadyz(ts, http.StatusOK) }

// unready waits until /readyz answers 503 and prints what it says.
func (l *lab) unready(ts *testscript.TestScript, _ []string) {
	fmt.Fprint(ts.Stdout(), l.awaitReadyz(ts, http.StatusServiceUnavailable))
}

func (l *lab) awaitReadyz(ts *testscript.TestScript, want int) (text string) {
	deadline := time.After(limit)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		status, text := l.ask(ts, "/readyz")
		if status == want {
			return text
		}
		select {
		case <-again.C:
		case <-deadline:
			ts.Fatalf("/readyz answers %d: %s", status, text)
		}
	}
}

// metrics prints the metrics.
func (l *lab) metrics(ts *testscript.TestScript, _ []string) {
	_, text := l.ask(ts, "/metrics")
	fmt.Fprint(ts.Stdout(), text)
}

// ask gets a path of the admin address.
func (l *lab) ask(ts *testscript.TestScript, path string) (status int, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.admin+path, nil)
	ts.Check(err)
	response, err := http.DefaultClient.Do(request)
	ts.Check(err)
	body, err := io.ReadAll(response.Body)
	ts.Check(err)
	ts.Check(response.Body.Close())
	return response.StatusCode, string(body)
}

// space raises etcd's alarm of a full disk (full), or ends it (free).
func (l *lab) space(ts *testscript.TestScript, args []string) {
	action := map[string]pb.AlarmRequest_AlarmAction{"full": pb.AlarmRequest_ACTIVATE, "free": pb.AlarmRequest_DEACTIVATE}[args[0]]
	_, err := l.server.Server.Alarm(context.Background(), &pb.AlarmRequest{
		MemberID: uint64(l.server.Server.MemberID()), Action: action, Alarm: pb.AlarmType_NOSPACE,
	})
	ts.Check(err)
}

// put writes a value through the proxy.
func (l *lab) put(ts *testscript.TestScript, args []string) {
	l.call(ts, "unix://"+filepath.Join(l.dir, "s.sock"), func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Put(ctx, args[0], args[1])
		return err
	})
}

// get prints a value as it is read through the proxy, in quotes.
func (l *lab) get(ts *testscript.TestScript, args []string) {
	l.read(ts, "unix://"+filepath.Join(l.dir, "s.sock"), args[0])
}

// failing prints why a value cannot be read through the proxy.
func (l *lab) failing(ts *testscript.TestScript, args []string) {
	l.call(ts, "unix://"+filepath.Join(l.dir, "s.sock"), func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Get(ctx, args[0])
		if err == nil {
			return fmt.Errorf("reading %s succeeded", args[0])
		}
		fmt.Fprintln(ts.Stdout(), err)
		return nil
	})
}

// refused prints why a value cannot be written through the proxy.
func (l *lab) refused(ts *testscript.TestScript, args []string) {
	l.call(ts, "unix://"+filepath.Join(l.dir, "s.sock"), func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Put(ctx, args[0], "value")
		if err == nil {
			return fmt.Errorf("writing %s succeeded", args[0])
		}
		fmt.Fprintln(ts.Stdout(), err)
		return nil
	})
}

// stored prints a value as etcd has it, in quotes.
func (l *lab) stored(ts *testscript.TestScript, args []string) { l.read(ts, l.etcd, args[0]) }

func (l *lab) read(ts *testscript.TestScript, endpoint, key string) {
	l.call(ts, endpoint, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Get(ctx, key)
		if err == nil && len(response.Kvs) != 1 {
			err = fmt.Errorf("%d values, want one", len(response.Kvs))
		}
		if err == nil {
			fmt.Fprintf(ts.Stdout(), "%q\n", response.Kvs[0].Value)
		}
		return err
	})
}

func (l *lab) call(ts *testscript.TestScript, endpoint string, f func(context.Context, *clientv3.Client) error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop(), Context: ctx})
	ts.Check(err)
	defer client.Close()
	ts.Check(f(ctx, client))
}

// log reads a process's log line by line.
type log struct {
	lines chan string   // those that were not awaited yet
	ended chan struct{} // closed at the end of the log

	mu   sync.Mutex // guards text
	text strings.Builder
}

func readLog(from io.Reader) *log {
	l := &log{lines: make(chan string, 1000), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		defer close(l.lines)
		for scanner := bufio.NewScanner(from); scanner.Scan(); {
			l.mu.Lock()
			l.text.WriteString(scanner.Text() + "\n")
			l.mu.Unlock()
			l.lines <- scanner.Text()
		}
	}()
	return l
}

// all returns everything that was logged.
func (l *log) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
