package azure

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

var (
	// errChallenge says that a 401 asks for a login that cannot be carried out.
	errChallenge = errors.New("the 401 does not say where to log in: is this a Key Vault, or something in front of it?")
	// errResource says that a 401 asks for a token for somebody else.
	errResource = errors.New("the 401 asks for a token for another service than the vault's name belongs to: is this a Key Vault, or something in front of it?")
)

// checkChallenge refuses, before the SDK does what a challenge says, those that its
// parser cannot read and those that want a token for another service. azkeys takes
// the tenant from the fourth part of the authorization URL without looking whether
// there is one (challenge_policy.go, parseTenant), and panics. This reads the header
// as it does; what else may be wrong with it the SDK sees for itself. A claims
// challenge has neither of the two fields.
func checkChallenge(header http.Header, host string) error {
	fields := challengeFields(header.Get("WWW-Authenticate"))
	if authorization := fields["authorization"]; authorization != "" && strings.Count(authorization, "/") < 3 {
		return errChallenge
	}
	scope, ok := fields["scope"]
	if !ok {
		scope, ok = fields["resource"]
	}
	if !ok || scope == "" {
		return nil
	}
	service, err := url.Parse(scope)
	if err != nil || service.Host == "" || !strings.HasSuffix(host, "."+service.Host) {
		return errResource
	}
	return nil
}

// challengeFields reads a WWW-Authenticate header in the way of azkeys.
func challengeFields(text string) map[string]string {
	fields := map[string]string{}
	for part := range strings.SplitSeq(strings.ReplaceAll(text, "Bearer ", ""), " ") {
		if name, value, ok := strings.Cut(part, "="); ok && !strings.Contains(value, "=") {
			fields[name] = strings.TrimSuffix(strings.ReplaceAll(value, `"`, ""), ",")
		}
	}
	return fields
}
