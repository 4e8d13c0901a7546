package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/etcdseal/etcdseal/kek/local"
)

// newKEK carries out `etcdseal keyring new-kek`. It never overwrites a file.
func newKEK(ctx context.Context, args []string, s streams) int {
	flags := flag.NewFlagSet("keyring new-kek", flag.ContinueOnError)
	out := flags.String("out", "", "make the key in `FILE`, which must not exist yet")
	if status, ok := parseFlags(flags, args, s); !ok {
		return status
	}
	if !required(flags, "out", *out, s) {
		return exitUnable
	}
	if err := local.Generate(*out); err != nil {
		return fail(s, err)
	}
	version, err := localVersion(ctx, *out)
	if err != nil {
		return fail(s, err)
	}
	_, err = fmt.Fprintf(s.out, `Made the key-encryption key %s, version %s, readable by you alone.
Keep a copy of it apart from etcd's backups: without it nothing that is sealed under it can be read again.
`, *out, version)
	return finish(s, exitDone, err)
}

// localVersion reads a key file back, which proves that it can be used, and
// returns the key's version.
func localVersion(ctx context.Context, file string) (string, error) {
	kek, err := local.New(local.Config{KeyFile: file})
	if err != nil {
		return "", err
	}
	defer kek.Close()
	return kek.Version(ctx)
}
