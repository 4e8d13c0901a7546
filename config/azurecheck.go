package config

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// azureKeyForm is the form of a key's name in the API definition.
var azureKeyForm = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// validate reports what is missing or contradictory and fills in the defaults that
// depend on other fields.
func (a *AzureKEK) validate(r *report, path string, tryGiven bool) {
	if a.VaultURL == "" {
		r.missing(path+".vaultURL", "write the vault's URL, as in https://v.vault.azure.net")
	} else if wrong := checkVaultURL(a.VaultURL); wrong != "" {
		r.add(path+".vaultURL", "%s", wrong)
	}
	if a.Key == "" {
		r.missing(path+".key", "name the key in the vault")
	} else if !azureKeyForm.MatchString(a.Key) {
		r.add(path+".key", "want 1 to 127 letters, digits and dashes, and no version: the latest one is followed")
	}
	a.validateWay(r, path)
	if a.TryTimeout > a.Timeout {
		if tryGiven {
			r.add(path+".tryTimeout", "more than timeout, which is %v: raise that too", a.Timeout)
		}
		a.TryTimeout = a.Timeout
	}
	a.validateManaged(r, path)
	a.Credential.validate(r, path+".credential")
}

// validateWay checks how the vault is reached.
func (a *AzureKEK) validateWay(r *report, path string) {
	if a.AuthorityHost != "" && checkURL(a.AuthorityHost, "https") != "" {
		r.add(path+".authorityHost", "want https:// and the login service's host, as in https://login.microsoftonline.com")
	} else if a.AuthorityHost == "" && a.VaultURL != "" && checkVaultURL(a.VaultURL) == "" && !inKnownCloud(a.VaultURL) {
		r.missing(path+".authorityHost", "no cloud is known here that the vault's name belongs to: write the URL of its login service")
	}
	if a.Address != "" {
		if _, _, err := net.SplitHostPort(a.Address); err != nil && isHost(strings.Trim(a.Address, "[]")) {
			a.Address = net.JoinHostPort(strings.Trim(a.Address, "[]"), "443")
		}
		if host, port, err := net.SplitHostPort(a.Address); err != nil || !isHost(host) || !isPort(port, 1) {
			r.add(path+".address", "want the address of a private endpoint, as in 10.1.2.3 or 10.1.2.3:443")
		}
	}
	if a.ProxyURL == "" {
		return
	}
	if wrong := checkURL(a.ProxyURL, "http", "https"); wrong != "" {
		r.add(path+".proxyURL", "want the URL of a proxy without a user, as in http://proxy:3128")
	}
	if a.Address != "" {
		r.add(path+".proxyURL", "contradicts address, to which the connection is direct: keep one of them")
	}
}

// validateManaged checks how a key is made.
func (a *AzureKEK) validateManaged(r *report, path string) {
	if !a.Managed {
		for _, field := range []struct {
			name  string
			given bool
		}{{"keyType", a.KeyType != ""}, {"keySize", a.KeySize != 0}, {"rotateAfterDays", a.RotateAfterDays != 0}} {
			if field.given {
				r.add(path+"."+field.name, "only with managed: true, which makes the key: leave it out")
			}
		}
		return
	}
	hsm := strings.Contains(a.VaultURL, ".managedhsm.")
	if a.KeyType == "" {
		a.KeyType = AzureRSA
		if hsm {
			a.KeyType = AzureOctHSM
		}
	}
	switch {
	case a.KeyType == AzureOctHSM && !hsm:
		r.add(path+".keyType", "oct-HSM is for a Managed HSM only: use RSA or RSA-HSM")
	case a.KeyType == AzureRSA && hsm:
		r.add(path+".keyType", "a Managed HSM has no keys of type RSA: use RSA-HSM or oct-HSM")
	}
	switch {
	case a.KeySize != 0 && a.KeyType == AzureOctHSM:
		r.add(path+".keySize", "a key of type oct-HSM has 256 bits: leave it out")
	case a.KeySize == 0 && a.KeyType != AzureOctHSM:
		a.KeySize = DefaultAzureKeySize
	case a.KeySize != 0 && !slices.Contains([]int{2048, 3072, 4096}, a.KeySize):
		r.add(path+".keySize", "want 2048, 3072 or 4096")
	}
	if a.RotateAfterDays == 0 {
		a.RotateAfterDays = DefaultAzureRotateAfterDays
	}
}

// credentialFields are the fields of a credential by the types that use them, and
// which of those need them.
var credentialFields = []struct {
	name     string
	value    func(*AzureCredential) bool // whether it is given
	used     []AzureCredentialType
	required []AzureCredentialType
	want     string
}{
	{"tenantID", func(c *AzureCredential) bool { return c.TenantID != "" },
		[]AzureCredentialType{AzureWorkloadIdentity, AzureClientSecret, AzureClientCertificate, AzureCLI, AzureDefault},
		[]AzureCredentialType{AzureClientSecret, AzureClientCertificate}, "write the id of the application's tenant"},
	{"clientID", func(c *AzureCredential) bool { return c.ClientID != "" },
		[]AzureCredentialType{AzureWorkloadIdentity, AzureManagedIdentity, AzureClientSecret, AzureClientCertificate},
		[]AzureCredentialType{AzureClientSecret, AzureClientCertificate}, "write the application's id"},
	{"objectID", func(c *AzureCredential) bool { return c.ObjectID != "" }, []AzureCredentialType{AzureManagedIdentity}, nil, ""},
	{"resourceID", func(c *AzureCredential) bool { return c.ResourceID != "" }, []AzureCredentialType{AzureManagedIdentity}, nil, ""},
	{"tokenFile", func(c *AzureCredential) bool { return c.TokenFile != "" }, []AzureCredentialType{AzureWorkloadIdentity}, nil, ""},
	{"secretFile", func(c *AzureCredential) bool { return c.SecretFile != "" }, []AzureCredentialType{AzureClientSecret}, []AzureCredentialType{AzureClientSecret},
		"name the file that holds the client secret"},
	{"certificateFile", func(c *AzureCredential) bool { return c.CertificateFile != "" }, []AzureCredentialType{AzureClientCertificate}, []AzureCredentialType{AzureClientCertificate},
		"name the file that holds the certificate and its key"},
	{"sendCertificateChain", func(c *AzureCredential) bool { return c.SendCertificateChain }, []AzureCredentialType{AzureClientCertificate}, nil, ""},
	{"allowedTenants", func(c *AzureCredential) bool { return len(c.AllowedTenants) > 0 },
		[]AzureCredentialType{AzureWorkloadIdentity, AzureClientSecret, AzureClientCertificate, AzureCLI, AzureDefault}, nil, ""},
}

// validate reports the fields that the type needs, and those that it does not use.
func (c *AzureCredential) validate(r *report, path string) {
	if c.Type == "" {
		r.missing(path+".type", "say how to log in: workloadIdentity, managedIdentity, clientSecret, clientCertificate, azureCLI or default")
		return
	}
	for _, f := range credentialFields {
		at := path + "." + f.name
		switch given := f.value(c); {
		case given && !slices.Contains(f.used, c.Type):
			r.add(at, "not used by type %s: leave it out", c.Type)
		case !given && slices.Contains(f.required, c.Type):
			r.missing(at, "%s", f.want)
		}
	}
	if c.Type == AzureManagedIdentity {
		chosen := 0
		for _, id := range []string{c.ClientID, c.ObjectID, c.ResourceID} {
			if id != "" {
				chosen++
			}
		}
		if chosen > 1 {
			r.add(path, "more than one of clientID, objectID and resourceID: keep one of them")
		}
	}
	for i, tenant := range c.AllowedTenants {
		if tenant != "*" && !tenantForm.MatchString(tenant) {
			r.add(index(path+".allowedTenants", i), "want the id of a tenant, as in 72f988bf-86f1-41af-91ab-2d7cd011db47, or \"*\"")
		}
	}
	if c.TenantID != "" && !tenantForm.MatchString(c.TenantID) {
		r.add(path+".tenantID", "want the id of a tenant, as in 72f988bf-86f1-41af-91ab-2d7cd011db47: vaults name theirs by it, and a domain would not be known again")
	}
}

// tenantForm is the form of a tenant's id. A vault says by its id in which tenant it is,
// so that a login by a domain's name would never be the right one.
var tenantForm = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// checkVaultURL returns what is wrong with a vault's URL, or "".
func checkVaultURL(vaultURL string) string {
	const want = "want https:// and the vault's host name and nothing else, as in https://v.vault.azure.net"
	if checkURL(vaultURL, "https") != "" {
		return want
	}
	u, err := url.Parse(vaultURL)
	switch {
	case err != nil:
		return want
	case u.Port() != "":
		return want + "; a private endpoint's address goes into address"
	case net.ParseIP(u.Hostname()) != nil || strings.Count(u.Hostname(), ".") < 2:
		return want
	}
	return ""
}

// checkURL returns what is wrong with a URL that is a scheme, a host and maybe a
// port, or "".
func checkURL(text string, schemes ...string) string {
	u, err := url.Parse(text)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.User != nil || u.Path != "" && u.Path != "/" ||
		u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" || strings.HasSuffix(text, "#") || !isHost(u.Hostname()) {
		return "want " + strings.Join(schemes, " or ") + ":// and a host"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "want a port from 1 to 65535"
		}
	}
	return ""
}

// inKnownCloud says whether the login service of a vault is known by its name.
func inKnownCloud(vaultURL string) bool {
	u, err := url.Parse(vaultURL)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	for _, suffix := range []string{".azure.net", ".azure.cn", ".usgovcloudapi.net"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}
