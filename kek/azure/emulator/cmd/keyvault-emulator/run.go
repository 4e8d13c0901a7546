package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// client is the application that may use the vault.
const client = "11111111-1111-1111-1111-111111111111"

// secret is its password, which protects nothing.
const secret = "emulator"

// settings are the command line's.
type settings struct {
	listen, control, proxy, dir, vault, key, keyType string
	purgeProtection                                  bool
}

// run runs the emulator until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var s settings
	flags := flag.NewFlagSet("keyvault-emulator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.listen, "listen", "127.0.0.1:0", "answer for the vault and the login service on `ADDRESS`")
	flags.StringVar(&s.control, "control", "127.0.0.1:0", "take faults and changes, in plain HTTP, on `ADDRESS`")
	flags.StringVar(&s.proxy, "proxy", "127.0.0.1:0", "lead programs that heed HTTPS_PROXY to the emulator under the real names, on `ADDRESS`")
	flags.StringVar(&s.dir, "dir", "", "write ca.pem and client.secret into `DIR`, which must exist")
	flags.StringVar(&s.vault, "vault", "emulated.vault.azure.net", "the vault's host `NAME`; one under managedhsm.azure.net is a Managed HSM's")
	flags.StringVar(&s.key, "key", "etcd", "make a key of this `NAME`; empty for none")
	flags.StringVar(&s.keyType, "key-type", "", "the key's `TYPE`: RSA, RSA-HSM, oct-HSM or EC (default RSA, on a Managed HSM oct-HSM)")
	flags.BoolVar(&s.purgeProtection, "purge-protection", true, "forbid purging")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || s.dir == "":
		fmt.Fprintln(stderr, "keyvault-emulator: --dir is required, and there are no arguments besides the flags")
		return 2
	}
	if err := serve(ctx, s, stdout); err != nil {
		fmt.Fprintf(stderr, "keyvault-emulator: %v\n", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, s settings, stdout io.Writer) error {
	server, err := emulator.New(emulator.Config{})
	if err != nil {
		return err
	}
	defer server.Close()
	vault := server.AddVault(emulator.VaultConfig{Host: s.vault, PurgeProtection: s.purgeProtection})
	if s.key != "" {
		vault.CreateKey(s.key, cmp.Or(s.keyType, vault.DefaultKeyType()), 0)
	}
	server.AddApp(emulator.App{ClientID: client, Secret: secret})
	ca, password := filepath.Join(s.dir, "ca.pem"), filepath.Join(s.dir, "client.secret")
	if err := errors.Join(os.WriteFile(ca, server.CA(), 0o644), os.WriteFile(password, []byte(secret+"\n"), 0o600)); err != nil {
		return err
	}
	address, err := server.Listen(ctx, s.listen)
	if err != nil {
		return err
	}
	proxy, err := server.ListenProxy(ctx, s.proxy)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.control)
	if err != nil {
		return err
	}
	control := &http.Server{Handler: server.Control(vault), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = control.Close() })
	fmt.Fprintf(stdout, `keks:
  prod:
    azureKeyVault:
      vaultURL: %s
      key: %s
      address: %s
      authorityHost: https://%s
      caFile: %s
      credential: {type: clientSecret, tenantID: %s, clientID: %s, secretFile: %s}

# curl http://%[9]s/                                     calls, one JSON object a line
# curl 'http://%[9]s/version?key=%[2]s'                    the key's latest version
# curl -X POST 'http://%[9]s/rotate?key=%[2]s'             also: disable, enable, delete, recover
# curl -d '{"Op":"unwrapkey","Status":429}' http://%[9]s/faults
# curl -X DELETE http://%[9]s/faults

# For other programs, under the real names:
# export HTTPS_PROXY=http://%[10]s SSL_CERT_FILE=%[5]s
`, vault.URL(), s.key, address, address, ca, emulator.DefaultTenant, client, password, listener.Addr(), proxy)
	if err := control.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
