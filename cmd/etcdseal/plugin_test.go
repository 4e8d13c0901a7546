package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"k8s.io/kms/pkg/service"

	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// plugin is a KMS v2 plugin whose current key is named by a file, which may change. It
// takes the keys that a file names on several lines in turn.
type plugin struct {
	*kmstest.Plugin
	file  string
	asked atomic.Int64
}

func (p *plugin) Status(ctx context.Context) (*service.StatusResponse, error) {
	p.read()
	return p.Plugin.Status(ctx)
}

func (p *plugin) Encrypt(ctx context.Context, uid string, plaintext []byte) (*service.EncryptResponse, error) {
	p.read()
	return p.Plugin.Encrypt(ctx, uid, plaintext)
}

func (p *plugin) read() {
	keyID, err := os.ReadFile(p.file)
	if err != nil {
		panic(err) // the script has not made it
	}
	ids := strings.Fields(string(keyID))
	p.Rotate(ids[int(p.asked.Add(1))%len(ids)])
}

// servePlugin is `kms-plugin SOCKET FILE`: it serves until it is killed, and as plugins
// do it takes away the socket of one that was.
func servePlugin() {
	_ = os.Remove(os.Args[1]) // most often there is none
	_, err := kmstest.Serve(&plugin{Plugin: kmstest.New("secret", ""), file: os.Args[2]}, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}
