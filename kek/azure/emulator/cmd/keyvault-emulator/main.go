// Command keyvault-emulator runs an emulated Azure Key Vault, with its login
// service, on this machine: for trying etcdseal out and for tests in other
// languages. It holds its keys in memory and protects nothing.
//
//	go run ./kek/azure/emulator/cmd/keyvault-emulator --dir /tmp/vault
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
