package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// readyTimeout bounds the wait for /readyz, and readyAgain is how often it is
	// asked.
	readyTimeout = 30 * time.Second
	readyAgain   = 5 * time.Millisecond
	// stopTimeout is how long the proxy may take to end before it is killed.
	stopTimeout = 10 * time.Second
)

// configFile is the configuration of the show. The paths are relative to it.
const configFile = `listen: {address: "127.0.0.1:0", insecure: true}
admin: {address: "127.0.0.1:0"}
etcd: {endpoints: ["%s"]}
keks: {dev: {local: {keyFile: kek.key}}}
rules:
  - {prefix: /registry/secrets/, kek: dev}
keyring: {name: quickstart}
`

// proxy is a running `etcdseal serve`.
type proxy struct {
	url     string
	admin   string
	started time.Time
	command *exec.Cmd
	log     string        // the file of its log
	ended   chan struct{} // closed when it has ended
}

// makeKEK makes a local key-encryption key.
func makeKEK(ctx context.Context, binary, file string) error {
	output, err := exec.CommandContext(ctx, binary, "keyring", "new-kek", "--out", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making a key-encryption key (`make build` builds etcdseal): %w\n%s", err, output)
	}
	return nil
}

// startProxy starts an etcdseal with its configuration and log in dir, and waits
// until it says where it listens.
func startProxy(ctx context.Context, binary, dir, etcd string) (*proxy, error) {
	file := filepath.Join(dir, "etcdseal.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configFile, etcd), 0o600); err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "etcdseal.log"))
	if err != nil {
		return nil, fmt.Errorf("making the log: %w", err)
	}
	command := exec.Command(binary, "serve", "--config", file)
	command.SysProcAttr = childAttributes()
	stderr, err := command.StderrPipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting etcdseal: %w", err), log.Close())
	}
	p := &proxy{command: command, log: log.Name(), started: time.Now(), ended: make(chan struct{})}
	if err := command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting etcdseal: %w", err), log.Close())
	}
	addresses := make(chan serving, 1)
	go p.follow(stderr, log, addresses)
	select {
	case at := <-addresses:
		p.url, p.admin = "http://"+at.Address, "http://"+at.Admin
		return p, nil
	case <-p.ended:
		return nil, p.failure()
	case <-ctx.Done():
		p.stop(stopTimeout)
		return nil, ctx.Err()
	}
}

// serving is the line of etcdseal's log that says where it listens.
type serving struct {
	Message string `json:"msg"`
	Address string `json:"address"`
	Admin   string `json:"admin"`
}

// follow copies the proxy's log into a file until the proxy ends.
func (p *proxy) follow(stderr io.Reader, log io.WriteCloser, addresses chan<- serving) {
	defer close(p.ended)
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadBytes('\n')
		_, _ = log.Write(line) // a log that cannot be written ends no show
		var at serving
		if json.Unmarshal(line, &at) == nil && at.Message == "serving" {
			addresses <- at
		}
		if err != nil {
			break
		}
	}
	_ = log.Close()
	_ = p.command.Wait() // failure tells the status
}

// waitReady waits until the proxy is ready and returns how long after its start
// that was.
func (p *proxy) waitReady(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(readyAgain)
	defer again.Stop()
	for {
		status, text, err := p.readiness(ctx)
		if status == http.StatusOK {
			return time.Since(p.started), nil
		}
		select {
		case <-again.C:
		case <-p.ended:
			return 0, p.failure()
		case <-ctx.Done():
			return 0, errors.Join(fmt.Errorf("waiting for etcdseal: %w; /readyz says: %s", ctx.Err(), text), err)
		}
	}
}

// readiness asks the proxy's /readyz.
func (p *proxy) readiness(ctx context.Context) (status int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.admin+"/readyz", nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, strings.TrimSpace(string(body)), err
}

// failure says how the proxy ended that should not have ended yet.
func (p *proxy) failure() error {
	text, err := os.ReadFile(p.log)
	return errors.Join(fmt.Errorf("etcdseal ended by itself: %v\n%s", p.command.ProcessState, text), err)
}

// stop ends the proxy and waits for it; after the timeout it kills it.
func (p *proxy) stop(timeout time.Duration) {
	_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(timeout):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}
