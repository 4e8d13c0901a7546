package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// startVault starts an emulated Key Vault with a key "etcd", and one that cannot wrap,
// "elliptic". Its address is then in
// $VAULT, which is the login service's too; ca.pem and client.secret are files.
func (l *lab) startVault(ts *testscript.TestScript, _ []string) {
	server, err := emulator.New(emulator.Config{})
	ts.Check(err)
	l.env.Defer(func() { _ = server.Close() })
	vault := server.AddVault(emulator.VaultConfig{Host: "v.vault.azure.net"})
	vault.CreateKey("etcd", "RSA", 0)
	vault.CreateKey("elliptic", "EC", 0)
	server.AddApp(emulator.App{ClientID: "app", Secret: "the-client-secret"})
	address, err := server.Listen(context.Background(), "127.0.0.1:0")
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(l.dir, "ca.pem"), server.CA(), 0o600))
	ts.Check(os.WriteFile(filepath.Join(l.dir, "client.secret"), []byte("the-client-secret\n"), 0o600))
	ts.Setenv("VAULT", address.String())
	l.vault, l.azure = vault, server
}

// changeKey disables, enables, deletes, recovers or rotates the vault's key, or has
// something else answer in the vault's stead ("html") and no longer ("itself").
func (l *lab) changeKey(ts *testscript.TestScript, args []string) {
	switch args[0] {
	case "disable", "enable":
		l.vault.SetEnabled("etcd", "", args[0] == "enable")
	case "delete":
		l.vault.Delete("etcd")
	case "recover":
		l.vault.Recover("etcd")
	case "rotate":
		l.vault.Rotate("etcd")
	case "html":
		l.azure.Inject(emulator.HTML("", 404))
	case "itself":
		l.azure.ClearFaults()
	default:
		ts.Fatalf("a key cannot be %s", args[0])
	}
}

// opens waits until a value can be read through the proxy: why it could not is
// remembered for some seconds.
func (l *lab) opens(ts *testscript.TestScript, args []string) {
	l.call(ts, "unix://"+filepath.Join(l.dir, "s.sock"), func(ctx context.Context, client *clientv3.Client) error {
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for {
			_, err := client.Get(ctx, args[0])
			if err == nil {
				return nil
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				return err
			}
		}
	})
}

// Every field of the configuration reaches the KEK.
func TestAzureConfig(t *testing.T) {
	got, err := azureConfig("prod", &config.AzureKEK{
		VaultURL: "https://v.vault.azure.net", Key: "k", AuthorityHost: "https://login", Address: "10.1.2.3:443", CAFile: "ca", ProxyURL: "http://proxy:3128",
		PollInterval: 1, TryTimeout: 2, Timeout: 3, Managed: true, KeyType: "RSA-HSM", KeySize: 4096, RotateAfterDays: 30,
		Credential: config.AzureCredential{
			Type: "clientSecret", TenantID: "t", ClientID: "c", ObjectID: "o", ResourceID: "r", TokenFile: "tf", SecretFile: "sf", CertificateFile: "cf",
			SendCertificateChain: true, AllowedTenants: []string{"a"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := got.Proxy(nil)
	if err != nil || proxy.String() != "http://proxy:3128" {
		t.Errorf("the proxy is %v, %v", proxy, err)
	}
	got.Proxy = nil
	want := azure.Config{
		Name: "prod", VaultURL: "https://v.vault.azure.net", Key: "k", AuthorityHost: "https://login", Address: "10.1.2.3:443", CAFile: "ca",
		PollInterval: 1, TryTimeout: 2, Timeout: 3, Managed: &azure.Managed{KeyType: "RSA-HSM", KeySize: 4096, RotateAfter: 30 * 24 * time.Hour},
		Credential: azure.Credential{
			Type: "clientSecret", TenantID: "t", ClientID: "c", ObjectID: "o", ResourceID: "r", TokenFile: "tf", SecretFile: "sf", CertificateFile: "cf",
			SendChain: true, AllowedTenants: []string{"a"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("azureConfig differs (-want +got):\n%s", diff)
	}
}
