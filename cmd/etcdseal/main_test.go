package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary be etcdseal, or a KMS v2 plugin, when a script runs
// it by that name. It is hardened before anything else runs in it, as etcdseal is: gRPC's
// logger, which that replaces, must not be in use.
func TestMain(m *testing.M) {
	if err := harden("http2client=0"); err != nil { // a setting that is not refused
		fmt.Fprintf(os.Stderr, "hardening the tests' process: %v\n", err)
		os.Exit(exitUnable)
	}
	testscript.Main(m, map[string]func(){"etcdseal": main, "kms-plugin": servePlugin})
}

// TestScripts runs every script in testdata. Beside testscript's own commands
// they know those of lab.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GOCOVERDIR", os.Getenv("GOCOVERDIR"))
			env.Values[labKey{}] = newLab(env)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"etcd":    command(0, (*lab).startEtcd),
			"vault":   command(0, (*lab).startVault),
			"key":     command(1, (*lab).changeKey),
			"records": command(1, (*lab).editRecords),
			"start":   command(1, (*lab).startProxy),
			"await":   command(1, (*lab).await),
			"signal":  command(1, (*lab).signal),
			"ended":   command(1, (*lab).ended),
			"ready":   command(0, (*lab).ready),
			"put":     command(2, (*lab).put),
			"get":     command(1, (*lab).get),
			"opens":   command(1, (*lab).opens),
			"stored":  command(1, (*lab).stored),
			"direct":  command(2, (*lab).direct),
			"remove":  command(1, (*lab).remove),
			"dek":     command(1, (*lab).dek),
			"failing": command(1, (*lab).failing),
			"refused": command(1, (*lab).refused),
			"unready": command(0, (*lab).unready),
			"metrics": command(0, (*lab).metrics),
			"space":   command(1, (*lab).space),
		},
	})
}

// command makes a method of lab a command with a number of arguments.
func command(args int, f func(*lab, *testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, got []string) {
		if neg || len(got) != args {
			ts.Fatalf("want %d arguments and no negation", args)
		}
		f(ts.Value(labKey{}).(*lab), ts, got)
	}
}
