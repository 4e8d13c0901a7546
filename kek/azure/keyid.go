package azure

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// keyNameForm is the form of a key's name in the API definition.
var keyNameForm = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// errForeign says that an answer is not of the key that was asked for.
var errForeign = errors.New("the answer is of another key or version than was asked for: is there something between etcdseal and the vault?")

// parseKeyID returns the version in a key's identifier,
// https://host/keys/name/version, if it is of this vault and key.
func parseKeyID(id, host, key string) (version string, err error) {
	rest, ok := strings.CutPrefix(id, "https://")
	if !ok {
		return "", errForeign
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 4 || !strings.EqualFold(strings.TrimSuffix(parts[0], ":443"), host) || parts[1] != "keys" ||
		!strings.EqualFold(parts[2], key) || !versionForm.MatchString(parts[3]) {
		return "", errForeign
	}
	return parts[3], nil
}

// vaultHost returns the host name in a vault's URL, in lower case.
func vaultHost(vaultURL string) (string, error) {
	const want = "want https:// and the vault's host name, as in https://v.vault.azure.net"
	u, err := url.Parse(vaultURL)
	if err != nil || u.Scheme != "https" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return "", errors.New(want)
	}
	if u.Port() != "" || strings.HasSuffix(u.Host, ":") {
		return "", fmt.Errorf("%s; another port goes into address", want)
	}
	host := strings.ToLower(u.Hostname())
	name, domain, _ := strings.Cut(host, ".")
	if name == "" || !strings.Contains(domain, ".") || !hostForm.MatchString(host) {
		return "", errors.New(want)
	}
	return host, nil
}

// hostForm is the form of a host name.
var hostForm = regexp.MustCompile(`^[0-9a-z-]+(\.[0-9a-z-]+)+$`)

// clouds are the known clouds by the ends of their vaults' names.
var clouds = []struct {
	suffix string
	cloud  cloud.Configuration
}{
	{".azure.net", cloud.AzurePublic},
	{".azure.cn", cloud.AzureChina},
	{".usgovcloudapi.net", cloud.AzureGovernment},
}

// cloudOf returns the cloud of a vault. Only the login service in it is used: what
// a token is for comes from the vault's challenge, and is checked against the
// vault's name.
func cloudOf(host, authorityHost string) cloud.Configuration {
	if authorityHost != "" {
		return cloud.Configuration{ActiveDirectoryAuthorityHost: authorityHost}
	}
	for _, known := range clouds {
		if strings.HasSuffix(host, known.suffix) {
			return known.cloud
		}
	}
	return cloud.Configuration{}
}

// isHSM says whether a host name is a Managed HSM's.
func isHSM(host string) bool {
	_, domain, _ := strings.Cut(host, ".")
	return strings.HasPrefix(domain, "managedhsm.")
}
