package kubeadm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/poll"
	"github.com/etcdseal/etcdseal/e2e/process"
)

// scriptLimit bounds one script, in which a guide may wait for a kube-apiserver.
const scriptLimit = 150 * time.Second

// Shell is one bash on a node, as somebody has it who follows a guide: what one script
// sets, the next one finds. The first command that fails ends it.
type Shell struct {
	node    *Node
	log     *process.Log
	scripts *os.File
	count   int
	ended   chan struct{}
}

// Shell starts a shell on the node.
func (n *Node) Shell(t testing.TB) *Shell {
	t.Helper()
	in, scripts, err := os.Pipe()
	if err != nil {
		t.Fatalf("making pipe of a shell: %v", err)
	}
	defer in.Close()
	s := &Shell{node: n, log: process.NewLog(t, "shell-"+n.Name), scripts: scripts, ended: make(chan struct{})}
	out, err := s.log.Open()
	if err != nil {
		t.Fatalf("opening log of a shell: %v", err)
	}
	// Scripts do not come by the standard input, which commands might read.
	cmd := exec.Command("nsenter", append(n.enter(), "bash", "-euo", "pipefail", "/dev/fd/3")...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, []*os.File{in}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting shell on %s: %v", n.Name, err)
	}
	go func() {
		defer close(s.ended)
		defer out.Close()
		_ = cmd.Wait() // Run tells by its absence that a script was not done
	}()
	t.Cleanup(func() {
		_ = scripts.Close()
		_ = cmd.Process.Kill()
		<-s.ended
	})
	return s
}

// Run runs a script and returns what it printed. The test fails when a command fails.
func (s *Shell) Run(t testing.TB, script string) string {
	t.Helper()
	before := len(s.log.Text(t))
	s.count++
	done := fmt.Sprintf("== script %d is done", s.count)
	if _, err := fmt.Fprintf(s.scripts, "%s\necho %q\n", script, done); err != nil {
		t.Fatalf("giving %s a script: %v", s.node.Name, err)
	}
	var printed string
	poll.Until(t, scriptLimit, "a script on "+s.node.Name, func(context.Context) error {
		ended := false
		select {
		case <-s.ended:
			ended = true
		default:
		}
		var found bool
		if printed, found = strings.CutSuffix(s.log.Text(t)[before:], done+"\n"); found {
			return nil
		}
		err := fmt.Errorf("it has printed so far:\n%s\nof the script:\n%s", printed, script)
		if ended {
			return poll.Permanent{Err: err}
		}
		return err
	})
	return printed
}
