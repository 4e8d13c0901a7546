package azure_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// certificate makes an application's certificate and returns it with its key in PEM.
func certificate(t *testing.T) (*x509.Certificate, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// Every kind of login works with the vault, through azidentity's own code.
func TestLogins(t *testing.T) {
	cert, certPEM := certificate(t)
	for _, r := range []struct {
		name string
		app  emulator.App
		set  func(t *testing.T, l *lab, c *azure.Credential)
	}{
		{"clientSecret", emulator.App{ClientID: "app", Secret: "pass"}, func(t *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.SecretFile = azure.ClientSecret, l.write(t, "s", "pass")
		}},
		{"clientCertificate", emulator.App{ClientID: "app", Certificate: cert}, func(t *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.CertificateFile = azure.ClientCertificate, l.write(t, "c.pem", certPEM)
		}},
		{"clientCertificate with its chain", emulator.App{ClientID: "app", Certificate: cert}, func(t *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.CertificateFile, c.SendChain = azure.ClientCertificate, l.write(t, "c.pem", certPEM), true
		}},
		{"workloadIdentity", emulator.App{ClientID: "app", Federated: "header.claims.signature"}, func(t *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.TokenFile = azure.WorkloadIdentity, l.write(t, "token", "header.claims.signature")
		}},
		{"managedIdentity, user-assigned", emulator.App{ClientID: "app", Managed: true}, func(_ *testing.T, _ *lab, c *azure.Credential) {
			c.Type, c.TenantID = azure.ManagedIdentity, ""
		}},
		{"managedIdentity, system-assigned", emulator.App{ClientID: "system", Managed: true, System: true}, func(_ *testing.T, _ *lab, c *azure.Credential) {
			c.Type, c.TenantID, c.ClientID = azure.ManagedIdentity, "", ""
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			l.AddApp(r.app)
			k := l.open(t, func(c *azure.Config) {
				c.Credential = azure.Credential{TenantID: emulator.DefaultTenant, ClientID: "app"}
				r.set(t, l, &c.Credential)
			})
			opens(t, k, must(t, k))
			calls := l.Calls()
			if got := calls[len(calls)-1].Client; got != r.app.ClientID {
				t.Errorf("the vault's caller is %q", got)
			}
		})
	}
}

// A login that fails says what the login service said, by its code, and what to do;
// it says nothing about the key.
func TestFailedLogins(t *testing.T) {
	_, certPEM := certificate(t)
	for _, r := range []struct {
		name  string
		set   func(t *testing.T, l *lab, c *azure.Credential)
		texts []string
	}{
		{"wrong secret", func(t *testing.T, l *lab, c *azure.Credential) { c.SecretFile = l.write(t, "s", "wrong-secret") }, []string{"AADSTS7000215", "401", "secretFile"}},
		{"unknown application", func(_ *testing.T, _ *lab, c *azure.Credential) { c.ClientID = "unknown" }, []string{"AADSTS700016", "clientID"}},
		{"the vault is in another tenant", func(_ *testing.T, _ *lab, c *azure.Credential) { c.TenantID = "00000000-0000-0000-0000-000000000000" }, []string{emulator.DefaultTenant, "allowedTenants"}},
		{"unregistered certificate", func(t *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.CertificateFile = azure.ClientCertificate, l.write(t, "c.pem", certPEM)
		}, []string{"AADSTS", "certificateFile"}},
		{"unknown federated token", func(t *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.TokenFile = azure.WorkloadIdentity, l.write(t, "token", "x.y.z")
		}, []string{"AADSTS", "issuer"}},
		{"no federated token", func(_ *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.TokenFile = azure.WorkloadIdentity, filepath.Join(l.dir, "none")
		}, []string{"workloadIdentity"}},
		{"no such identity", func(_ *testing.T, _ *lab, c *azure.Credential) { c.Type, c.ClientID = azure.ManagedIdentity, "nobody" }, []string{"managedIdentity", "assigned"}},
		{"login service down", func(_ *testing.T, l *lab, _ *azure.Credential) { l.Inject(emulator.ServerError(emulator.OpToken, 503)) }, []string{"503"}},
		{"login service breaks off", func(_ *testing.T, l *lab, _ *azure.Credential) {
			l.Inject(emulator.Fault{Op: emulator.OpToken, Drop: true})
		}, []string{"login by clientSecret failed"}},
		{"login service hangs", func(_ *testing.T, l *lab, _ *azure.Credential) {
			l.Inject(emulator.Fault{Op: emulator.OpToken, Hang: true})
		}, []string{"deadline exceeded"}},
		{"login service is HTML", func(_ *testing.T, l *lab, _ *azure.Credential) { l.Inject(emulator.HTML(emulator.OpToken, 200)) }, []string{"login by clientSecret failed"}},
		{"metadata service down", func(_ *testing.T, l *lab, c *azure.Credential) {
			c.Type, c.ClientID = azure.ManagedIdentity, "down"
			l.Inject(emulator.ServerError(emulator.OpIMDS, 500))
		}, []string{"the login service"}},
	} {
		t.Run(r.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				l := newLab(t)
				k := l.open(t, func(c *azure.Config) { r.set(t, l, &c.Credential) })
				_, err := k.Version(t.Context())
				wants(t, r.name, err, kek.Unavailable, r.texts...)
				if err != nil && (strings.Contains(err.Error(), "Trace ID") || strings.Contains(err.Error(), "wrong-secret") || strings.Contains(err.Error(), "x.y.z") || strings.Contains(err.Error(), "organisation")) {
					t.Errorf("%q repeats the answer or the secret", err)
				}
			})
		})
	}
}

// A secret that was replaced in its file is used without a restart; a file that is
// gone or empty for a moment does no harm.
func TestSecretIsReloaded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		w := must(t, k)
		l.SetSecret(clientID, "another")
		l.ExpireTokens()
		time.Sleep(2 * time.Hour)
		_, err := k.Unwrap(t.Context(), w)
		wants(t, "with the old secret", err, kek.Unavailable, "AADSTS7000215")
		l.write(t, "secret", "another\n")
		opens(t, k, w)
		l.write(t, "secret", "")
		time.Sleep(2 * time.Hour)
		opens(t, k, w)
		if err := os.Remove(filepath.Join(l.dir, "secret")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		opens(t, k, w)
	})
}

// So is a certificate that was renewed in its file.
func TestCertificateIsReloaded(t *testing.T) {
	_, old := certificate(t)
	registered, renewed := certificate(t)
	l := newLab(t)
	l.AddApp(emulator.App{ClientID: "app", Certificate: registered})
	k := l.open(t, func(c *azure.Config) {
		c.Credential = azure.Credential{Type: azure.ClientCertificate, TenantID: emulator.DefaultTenant, ClientID: "app", CertificateFile: l.write(t, "c.pem", old)}
	})
	_, err := k.Version(t.Context())
	wants(t, "with the old certificate", err, kek.Unavailable, "AADSTS700027", "certificateFile")
	l.write(t, "c.pem", renewed)
	opens(t, k, must(t, k))
}

// Tokens that expire, are refused before their time or are revoked are replaced
// without a call failing, and otherwise one lasts.
func TestTokens(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		w := must(t, k)
		for range 30 {
			opens(t, k, w)
			time.Sleep(time.Minute)
		}
		if n := l.Count(emulator.OpToken); n != 1 {
			t.Errorf("%d logins within a token's life", n)
		}
		for range 100 {
			time.Sleep(7 * time.Minute)
			opens(t, k, w)
		}
		if n := l.Count(emulator.OpToken); n < 11 || n > 20 {
			t.Errorf("%d logins in twelve hours", n)
		}
		for range 3 {
			l.RevokeTokens()
			opens(t, k, w)
		}
		for range 3 {
			l.ExpireTokens()
			opens(t, k, w)
			time.Sleep(2 * time.Minute)
		}
		last := l.Count(emulator.OpToken)
		opens(t, k, w)
		if n := l.Count(emulator.OpToken); n != last {
			t.Errorf("%d more logins", n-last)
		}
	})
}

// A managed identity's token that the vault refuses is replaced, too, though MSAL
// keeps those for the whole process.
func TestManagedIdentityTokens(t *testing.T) {
	l := newLab(t)
	l.AddApp(emulator.App{ClientID: "renewed", Managed: true})
	k := l.open(t, func(c *azure.Config) {
		c.Credential = azure.Credential{Type: azure.ManagedIdentity, ClientID: "renewed"}
	})
	w := must(t, k)
	l.ExpireTokens()
	if _, err := l.open(t, func(c *azure.Config) {
		c.Credential = azure.Credential{Type: azure.ManagedIdentity, ClientID: "renewed"}
	}).Unwrap(t.Context(), w); err != nil {
		t.Error(err)
	}
	opens(t, k, w)
}

// A vault that refuses every token does not have the login service asked for each
// call.
func TestRefusedLoginIsNotHammered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		w := must(t, k)
		l.ForgetCalls()
		l.Inject(emulator.Fault{Op: emulator.OpUnwrap, Status: 401, Code: "Unauthorized", Message: "AKV10032: Invalid issuer."})
		for range 600 {
			_, err := k.Unwrap(t.Context(), w)
			wants(t, "unwrapping", err, kek.Unavailable, "tenant")
			time.Sleep(time.Second)
		}
		if n := l.Count(emulator.OpToken); n > 11 {
			t.Errorf("%d logins in ten minutes", n)
		}
	})
}

// An application of one tenant uses a vault of another, if that is said.
func TestCrossTenant(t *testing.T) {
	const home, vaults = "aaaaaaaa-0000-0000-0000-000000000000", "bbbbbbbb-0000-0000-0000-000000000000"
	l := newLabAt(t, emulator.VaultConfig{Host: host, Tenant: vaults}, "RSA")
	l.AddApp(emulator.App{ClientID: "multi", Secret: secret, Tenants: []string{home, vaults}})
	for _, allowed := range [][]string{{vaults}, {"*"}, {"cccccccc-0000-0000-0000-000000000000", vaults}} {
		k := l.open(t, func(c *azure.Config) {
			c.Credential.TenantID, c.Credential.ClientID, c.Credential.AllowedTenants = home, "multi", allowed
		})
		opens(t, k, must(t, k))
	}
	k := l.open(t, func(c *azure.Config) { c.Credential.TenantID, c.Credential.ClientID = home, "multi" })
	_, err := k.Version(t.Context())
	wants(t, "not allowed", err, kek.Unavailable, vaults, "allowedTenants")
}

// Each cloud's vaults have a login service of their own, and one that is not known
// takes its from the configuration.
func TestClouds(t *testing.T) {
	for _, r := range []struct{ vault, authority, login string }{
		{"v.vault.azure.net", "", "login.microsoftonline.com:443"},
		{"v.vault.azure.cn", "", "login.chinacloudapi.cn:443"},
		{"v.vault.usgovcloudapi.net", "", "login.microsoftonline.us:443"},
		{"v.managedhsm.usgovcloudapi.net", "", "login.microsoftonline.us:443"},
		{"v.managedhsm.sovcloud-api.fr", "https://login.microsoftonline.us", "login.microsoftonline.us:443"},
		{"v.vault.azure.net", "https://127.0.0.1:8443/", "127.0.0.1:8443"},
	} {
		t.Run(r.vault+" "+r.authority, func(t *testing.T) {
			l := newLabAt(t, emulator.VaultConfig{Host: r.vault}, "RSA-HSM")
			var mu sync.Mutex
			dialled := map[string]bool{}
			k := l.open(t, func(c *azure.Config) {
				c.AuthorityHost = r.authority
				c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					dialled[address] = true
					return l.Dial(ctx, network, address)
				}
			})
			opens(t, k, must(t, k))
			if len(dialled) != 2 || !dialled[r.vault+":443"] || !dialled[r.login] {
				t.Errorf("connected to %v", dialled)
			}
		})
	}
	l := newLab(t)
	cfg := l.config()
	cfg.VaultURL = "https://v.vault.example.org"
	if _, err := azure.New(cfg); err == nil || !strings.Contains(err.Error(), "authorityHost") {
		t.Errorf("an unknown cloud: %v", err)
	}
}

// What is wrong with the configuration is said when it is opened.
func TestNewRefuses(t *testing.T) {
	l := newLab(t)
	for name, r := range map[string]struct {
		change func(*azure.Config)
		text   string
	}{
		"plain HTTP":    {func(c *azure.Config) { c.VaultURL = "http://v.vault.azure.net" }, "https://"},
		"a port":        {func(c *azure.Config) { c.VaultURL = "https://v.vault.azure.net:8443" }, "address"},
		"a path":        {func(c *azure.Config) { c.VaultURL = "https://v.vault.azure.net/keys/etcd" }, "host name"},
		"a user":        {func(c *azure.Config) { c.VaultURL = "https://a:b@v.vault.azure.net" }, "host name"},
		"no name":       {func(c *azure.Config) { c.VaultURL = "https://net" }, "host name"},
		"a version":     {func(c *azure.Config) { c.Key = "etcd/0123456789abcdef0123456789abcdef" }, "version"},
		"no key":        {func(c *azure.Config) { c.Key = "" }, "name of a key"},
		"no credential": {func(c *azure.Config) { c.Credential = azure.Credential{} }, "credential.type"},
		"no secret":     {func(c *azure.Config) { c.Credential.SecretFile = filepath.Join(l.dir, "none") }, "none"},
		"empty secret":  {func(c *azure.Config) { c.Credential.SecretFile = l.write(t, "empty", "\n") }, "empty"},
		"no certificate": {func(c *azure.Config) {
			c.Credential.Type, c.Credential.CertificateFile = azure.ClientCertificate, c.CAFile
		}, "RSA key"},
		"no authorities":    {func(c *azure.Config) { c.CAFile = c.Credential.SecretFile }, "no certificate"},
		"no workload":       {func(c *azure.Config) { c.Credential = azure.Credential{Type: azure.WorkloadIdentity} }, "tokenFile"},
		"negative interval": {func(c *azure.Config) { c.PollInterval = -1 }, "negative"},
		"managed, EC":       {func(c *azure.Config) { c.Managed = &azure.Managed{KeyType: "EC"} }, "RSA-HSM"},
		"managed, oct":      {func(c *azure.Config) { c.Managed = &azure.Managed{KeyType: "oct-HSM"} }, "Managed HSM"},
		"managed, small":    {func(c *azure.Config) { c.Managed = &azure.Managed{KeySize: 1024} }, "2048"},
		"managed, hasty":    {func(c *azure.Config) { c.Managed = &azure.Managed{RotateAfter: time.Hour} }, "7 days"},
	} {
		cfg := l.config()
		r.change(&cfg)
		if _, err := azure.New(cfg); err == nil || !strings.Contains(err.Error(), r.text) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want an error that names %q", name, err, r.text)
		}
	}
}
