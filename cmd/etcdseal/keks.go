package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/kmsv2"
	"github.com/etcdseal/etcdseal/kek/local"
)

// openKEKs opens all KEKs and reports every one that cannot be used. One that can and
// does not answer is not among them: it may come. Key Vault is not waited for at all.
func (d *daemon) openKEKs(ctx context.Context) error {
	d.keks = map[string]kek.KEK{}
	var errs []error
	for name, c := range d.config.KEKs {
		opened, provider, err := d.openKEK(name, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("opening KEK %q: %w", name, err))
			continue
		}
		d.onClose(opened.Close)
		opened = d.audited(name, opened)
		d.keks[name] = opened
		if c.AzureKeyVault != nil {
			d.logger.Info("KEK opened", "kek", name, "provider", provider, "vault", c.AzureKeyVault.VaultURL, "key", c.AzureKeyVault.Key)
			d.remote = append(d.remote, opened)
			continue
		}
		version, err := opened.Version(kek.WithWhy(ctx, kek.WhyVersion))
		if err != nil {
			d.logger.Warn("KEK does not answer, what needs it waits", "kek", name, "provider", provider, "error", err.Error())
			continue
		}
		d.logger.Info("KEK opened", "kek", name, "provider", provider, "keyVersion", version)
	}
	return errors.Join(errs...)
}

// openKEK opens one KEK and names its provider.
func (d *daemon) openKEK(name string, c config.KEK) (opened kek.KEK, provider string, err error) {
	switch {
	case c.AzureKeyVault != nil:
		settings, err := azureConfig(name, c.AzureKeyVault)
		if err != nil {
			return nil, "", err
		}
		settings.Logger = d.logger
		opened, err = azure.New(settings)
		return opened, "azureKeyVault", err
	case c.KMSv2 != nil:
		opened, err = kmsv2.New(kmsv2.Config{
			Name:         name,
			Endpoint:     c.KMSv2.Endpoint,
			Timeout:      c.KMSv2.Timeout,
			PollInterval: c.KMSv2.PollInterval,
			Logger:       d.logger,
		})
		return opened, "kmsV2", err
	default:
		opened, err = local.New(local.Config{Name: name, KeyFile: c.Local.KeyFile})
		return opened, "local", err
	}
}

// azureConfig turns the configuration's KEK into the package's. What the webhook of
// AKS workload identity puts into a pod's environment stands in for what is left
// out.
func azureConfig(name string, c *config.AzureKEK) (azure.Config, error) {
	credential := azure.Credential{
		Type:            azure.CredentialType(c.Credential.Type),
		TenantID:        c.Credential.TenantID,
		ClientID:        c.Credential.ClientID,
		ObjectID:        c.Credential.ObjectID,
		ResourceID:      c.Credential.ResourceID,
		TokenFile:       c.Credential.TokenFile,
		SecretFile:      c.Credential.SecretFile,
		CertificateFile: c.Credential.CertificateFile,
		SendChain:       c.Credential.SendCertificateChain,
		AllowedTenants:  c.Credential.AllowedTenants,
	}
	if credential.Type == azure.WorkloadIdentity {
		credential.TenantID = cmp.Or(credential.TenantID, os.Getenv("AZURE_TENANT_ID"))
		credential.ClientID = cmp.Or(credential.ClientID, os.Getenv("AZURE_CLIENT_ID"))
		credential.TokenFile = cmp.Or(credential.TokenFile, os.Getenv("AZURE_FEDERATED_TOKEN_FILE"))
	}
	settings := azure.Config{
		Name:          name,
		VaultURL:      c.VaultURL,
		Key:           c.Key,
		Credential:    credential,
		AuthorityHost: c.AuthorityHost,
		Address:       c.Address,
		CAFile:        c.CAFile,
		Proxy:         http.ProxyFromEnvironment,
		PollInterval:  c.PollInterval,
		TryTimeout:    c.TryTimeout,
		Timeout:       c.Timeout,
	}
	if c.ProxyURL != "" {
		proxy, err := url.Parse(c.ProxyURL)
		if err != nil {
			return azure.Config{}, fmt.Errorf("parsing proxyURL: %w", err)
		}
		settings.Proxy = http.ProxyURL(proxy)
	}
	if c.Managed {
		settings.Managed = &azure.Managed{
			KeyType: string(c.KeyType), KeySize: c.KeySize, RotateAfter: time.Duration(c.RotateAfterDays) * 24 * time.Hour,
		}
	}
	return settings, nil
}

// greetKEKs asks the KEKs that are not waited for at the start for their versions, so
// that the log says soon whether they answer, and the first DEK finds them logged in.
func (d *daemon) greetKEKs(ctx context.Context) {
	var all sync.WaitGroup
	for _, k := range d.remote {
		all.Go(func() {
			if _, err := k.Version(kek.WithWhy(ctx, kek.WhyVersion)); err != nil && ctx.Err() == nil {
				d.logger.Warn("KEK does not answer, what needs it waits", "provider", "azureKeyVault", "error", err.Error())
			}
		})
	}
	all.Wait()
}
