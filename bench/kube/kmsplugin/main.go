// Command kmsplugin is a KMS v2 plugin with a key in a local file, for measuring what kube-apiserver's own encryption costs. It serves with Kubernetes' own
// server library (k8s.io/kms/pkg/service) on a unix socket until it is told to end.
//
//	kmsplugin SOCKET KEYFILE
//
// The key file holds either 64 hexadecimal digits, an AES-256-GCM key, or an RSA private key in PEM (PKCS #8), used with OAEP and SHA-256 as Azure Key Vault
// uses its keys: what it wraps is as long as what Key Vault wraps.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/kms/pkg/service"
)

// handshake bounds the beginning of each connection.
const handshake = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stderr))
}

// run serves until ctx ends. The end of the process ends what is in flight.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: kmsplugin SOCKET KEYFILE")
		return 2
	}
	p, err := readPlugin(args[1])
	if err != nil {
		fmt.Fprintf(stderr, "kmsplugin: %v\n", err)
		return 2
	}
	ended := make(chan error, 1)
	go func() { ended <- service.NewGRPCService(args[0], handshake, p).ListenAndServe() }()
	select {
	case <-ctx.Done():
		return 0
	case err := <-ended:
		fmt.Fprintf(stderr, "kmsplugin: serving: %v\n", err)
		return 2
	}
}
