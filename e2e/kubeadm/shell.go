package kubeadm

import (
	"context"
	"fmt"
	"os"
	"strings"
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
	process *process.Process
	count   int
}

// Shell starts a shell on the node.
func (n *Node) Shell(t testing.TB) *Shell {
	t.Helper()
	in, scripts, err := os.Pipe()
	if err != nil {
		t.Fatalf("making pipe of a shell: %v", err)
	}
	defer in.Close()
	s := &Shell{node: n, log: process.NewLog(t, "shell-"+n.Name), scripts: scripts}
	// Scripts do not come by the standard input, which commands might read.
	s.process = process.Start(t, process.Config{
		Path: "nsenter", Args: append(n.enter(), "bash", "-euo", "pipefail", "/dev/fd/3"), ExtraFiles: []*os.File{in}, Log: s.log,
	})
	t.Cleanup(func() { _ = scripts.Close() })
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
		ended := s.process.Exited() != nil
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
