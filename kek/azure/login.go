package azure

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	azruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// CredentialType says how to log in. There is no default: a chain that tries one
// thing after another may find an identity that nobody meant.
type CredentialType string

// The ways to log in.
const (
	// WorkloadIdentity is a Kubernetes service account's federated token.
	WorkloadIdentity CredentialType = "workloadIdentity"
	// ManagedIdentity is the machine's identity, or one assigned to it.
	ManagedIdentity CredentialType = "managedIdentity"
	// ClientSecret is an application's password, in a file.
	ClientSecret CredentialType = "clientSecret"
	// ClientCertificate is an application's certificate and key, in a file.
	ClientCertificate CredentialType = "clientCertificate"
	// AzureCLI is whoever is logged in with az, for trying things out.
	AzureCLI CredentialType = "azureCLI"
	// DefaultChain is azidentity's DefaultAzureCredential.
	DefaultChain CredentialType = "default"
)

// Credential says as whom to log in. Fields that a type does not name are not used.
type Credential struct {
	Type CredentialType
	// TenantID is the identity's tenant. Required by clientSecret,
	// clientCertificate and workloadIdentity; may be set for azureCLI and
	// default.
	TenantID string
	// ClientID is the application's id. Required by clientSecret,
	// clientCertificate and workloadIdentity. For managedIdentity it, ObjectID
	// or ResourceID chooses a user-assigned identity; none of them is the
	// system-assigned one.
	ClientID, ObjectID, ResourceID string
	// TokenFile is the federated token. Required by workloadIdentity.
	TokenFile string
	// SecretFile holds the client secret; a newline at its end is not part of
	// it. Required by clientSecret.
	SecretFile string
	// CertificateFile holds the certificate and its RSA key, in PEM or PKCS
	// #12 without a password. Required by clientCertificate.
	CertificateFile string
	// SendChain sends the certificate chain with each login, for applications
	// that trust a subject name and issuer.
	SendChain bool
	// AllowedTenants are the tenants besides TenantID in which the vault may
	// be; "*" is all.
	AllowedTenants []string
}

// LoginError says that there is no token for the vault. It holds nothing of the
// login service's answer but its codes.
type LoginError struct {
	Type   CredentialType
	Status int    // HTTP status of the answer; 0 for none
	Code   string // the answer's, as in AADSTS7000215; may be empty
	hint   string
	cause  error
	again  bool          // another try may help
	wait   time.Duration // what the login service asks to wait for
}

// Error says how the login failed and what to do.
func (e *LoginError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "login by %s failed", e.Type)
	if e.Status != 0 {
		fmt.Fprintf(&b, ", HTTP status %d", e.Status)
	}
	if e.Code != "" {
		b.WriteString(", " + e.Code)
	}
	if e.cause != nil {
		fmt.Fprintf(&b, ": %v", e.cause)
	}
	if e.hint != "" {
		b.WriteString(": " + e.hint)
	}
	return b.String()
}

// Unwrap returns the cause, if it is known.
func (e *LoginError) Unwrap() error { return e.cause }

// NonRetriable tells azcore not to try again.
func (e *LoginError) NonRetriable() {}

// login is the azcore.TokenCredential of a KEK: one of azidentity's, made again when
// the file with its secret changes.
type login struct {
	cfg     Credential
	options azcore.ClientOptions

	mu      sync.Mutex // guards all below
	inner   azcore.TokenCredential
	made    [sha256.Size]byte // digest of the file that inner was made of
	refused time.Time         // when a vault last refused a token that was not expired
	renew   bool              // the next token must not come from a cache
}

// newLogin returns the credential. It fails for a configuration or file that cannot
// be used.
func newLogin(cfg Credential, options azcore.ClientOptions) (*login, error) {
	l := &login{cfg: cfg, options: options}
	if l.repeats() {
		l.options.Retry = policy.RetryOptions{}
	}
	if _, err := l.current(); err != nil {
		return nil, err
	}
	return l, nil
}

// repeats says whether azidentity tries again by itself: it has its own rules for a
// metadata service that is not up yet. All other logins are tried again with their
// call, by KEK.call.
func (l *login) repeats() bool { return l.cfg.Type == ManagedIdentity || l.cfg.Type == DefaultChain }

// GetToken implements azcore.TokenCredential. Neither a panic nor a text of the SDK
// gets out: a panic would leave those who wait for the same token waiting for ever.
func (l *login) GetToken(ctx context.Context, options policy.TokenRequestOptions) (token azcore.AccessToken, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &LoginError{Type: l.cfg.Type, cause: newPanicError(value)}
		}
	}()
	if tenant := options.TenantID; !l.allows(tenant) {
		return azcore.AccessToken{}, &LoginError{Type: l.cfg.Type, hint: fmt.Sprintf("the vault is in tenant %.64q and the credential is not: add that one to allowedTenants if the application is known there", tenant)}
	}
	inner, err := l.current()
	if err != nil {
		return azcore.AccessToken{}, &LoginError{Type: l.cfg.Type, cause: err}
	}
	if l.cfg.Type == ManagedIdentity && options.Claims == "" && l.renewed() {
		options.Claims = "{}" // MSAL's cache is the process's, and passed over for claims
	}
	token, err = inner.GetToken(ctx, options)
	if err != nil {
		return azcore.AccessToken{}, l.failed(ctx, err)
	}
	return token, nil
}

// renewAfter is how often tokens are asked for anew because a vault refuses them.
const renewAfter = time.Minute

// refuse notes that the vault did not accept a token, and reports whether another
// one will be got: azidentity would give the same one out until it expires.
func (l *login) refuse() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.refused) < renewAfter {
		return false
	}
	l.refused, l.renew = now, true
	return true
}

// renewed reports, once, whether a token is to be got anew.
func (l *login) renewed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	renew := l.renew
	l.renew = false
	return renew
}

// allows says whether a token may be asked for in a tenant. Types without a tenant
// of their own log in where the identity is.
func (l *login) allows(tenant string) bool {
	own := l.cfg.TenantID
	return tenant == "" || own == "" || strings.EqualFold(tenant, own) || l.cfg.Type == ManagedIdentity ||
		slices.ContainsFunc(l.cfg.AllowedTenants, func(allowed string) bool { return allowed == "*" || strings.EqualFold(allowed, tenant) })
}

// failed turns an error of azidentity into one that can be shown.
func (l *login) failed(ctx context.Context, err error) error {
	e := &LoginError{Type: l.cfg.Type, hint: hints[l.cfg.Type]}
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && failed.RawResponse != nil {
		e.Status, e.wait = failed.RawResponse.StatusCode, retryAfter(failed.RawResponse.Header, time.Now())
		if body, err := azruntime.Payload(failed.RawResponse); err == nil {
			e.Code = loginCode(body)
		}
		if passes(e.Status) {
			e.hint, e.again = "the login service has trouble, which says nothing of the credential", !l.repeats()
		}
		return e
	}
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	switch {
	case ctx.Err() != nil:
		e.cause, e.hint, e.again = ctx.Err(), "", true
	case x != nil && x.failure != nil:
		e.cause, e.hint, e.again = plainCause(x.failure), "", !l.repeats()
	}
	return e
}

// passes says whether the same request may get another answer than this status.
func passes(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// hints say what to do, by type.
var hints = map[CredentialType]string{
	WorkloadIdentity:  "are the federated credential's issuer, subject and audience those of the service account, and tenantID and clientID the application's?",
	ManagedIdentity:   "is the identity assigned to this machine?",
	ClientSecret:      "are tenantID and clientID right, and is the secret in secretFile still valid?",
	ClientCertificate: "are tenantID and clientID right, and is the certificate in certificateFile registered with the application?",
	AzureCLI:          "run az login",
	DefaultChain:      "none of the ways that DefaultAzureCredential tries works here: choose one in credential.type",
}

// loginCode returns the code in an answer of the login service.
func loginCode(body []byte) string {
	var in struct {
		Error string `json:"error"`
		Codes []int  `json:"error_codes"`
	}
	if json.Unmarshal(body, &in) != nil {
		return ""
	}
	if len(in.Codes) > 0 {
		return fmt.Sprint("AADSTS", in.Codes[0])
	}
	return plainCode(in.Error)
}

// current returns the credential made of what the file holds now. A file that
// cannot be used any more leaves the one that was made before.
func (l *login) current() (azcore.TokenCredential, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var content []byte
	if file := l.cfg.file(); file != "" {
		var err error
		if content, err = os.ReadFile(file); err != nil {
			if l.inner != nil {
				return l.inner, nil
			}
			return nil, fmt.Errorf("reading the credential: %w", err)
		}
		defer clear(content)
	}
	digest := sha256.Sum256(content)
	anew := l.renew && l.cfg.Type != ManagedIdentity // another credential has another cache
	if l.inner != nil && digest == l.made && !anew {
		return l.inner, nil
	}
	made, err := l.build(content)
	switch {
	case err == nil:
		l.inner, l.made, l.renew = made, digest, l.renew && !anew
	case l.inner == nil:
		return nil, fmt.Errorf("making the credential %s: %w", l.cfg.Type, err)
	}
	return l.inner, nil
}

// file returns the file that the credential is made of, if there is one.
func (c Credential) file() string {
	switch c.Type {
	case ClientSecret:
		return c.SecretFile
	case ClientCertificate:
		return c.CertificateFile
	}
	return ""
}

// build makes one of azidentity's credentials. Instance discovery is left out: the
// login service is the configuration's to say, and asking the public cloud about it
// keeps nobody out and stops those who cannot reach that.
func (l *login) build(content []byte) (azcore.TokenCredential, error) {
	switch c := l.cfg; c.Type {
	case WorkloadIdentity:
		if c.TenantID == "" || c.ClientID == "" || c.TokenFile == "" {
			return nil, errors.New("tenantID, clientID and tokenFile are needed: AKS sets them in pods with the label azure.workload.identity/use")
		}
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: l.options, TenantID: c.TenantID, ClientID: c.ClientID, TokenFilePath: c.TokenFile,
			AdditionallyAllowedTenants: c.AllowedTenants, DisableInstanceDiscovery: true,
		})
	case ManagedIdentity:
		options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: l.options}
		switch {
		case c.ClientID != "":
			options.ID = azidentity.ClientID(c.ClientID)
		case c.ObjectID != "":
			options.ID = azidentity.ObjectID(c.ObjectID)
		case c.ResourceID != "":
			options.ID = azidentity.ResourceID(c.ResourceID)
		}
		return azidentity.NewManagedIdentityCredential(options)
	case ClientSecret:
		secret := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
		if secret == "" {
			return nil, errors.New("secretFile is empty")
		}
		return azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, secret, &azidentity.ClientSecretCredentialOptions{
			ClientOptions: l.options, AdditionallyAllowedTenants: c.AllowedTenants, DisableInstanceDiscovery: true,
		})
	case ClientCertificate:
		certs, key, err := azidentity.ParseCertificates(content, nil)
		if err != nil {
			return nil, errors.New("certificateFile holds no certificate with its RSA key, in PEM or PKCS #12 without a password")
		}
		return azidentity.NewClientCertificateCredential(c.TenantID, c.ClientID, certs, key, &azidentity.ClientCertificateCredentialOptions{
			ClientOptions: l.options, AdditionallyAllowedTenants: c.AllowedTenants, DisableInstanceDiscovery: true, SendCertificateChain: c.SendChain,
		})
	case AzureCLI:
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: c.TenantID, AdditionallyAllowedTenants: c.AllowedTenants})
	case DefaultChain:
		return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: l.options, TenantID: c.TenantID, AdditionallyAllowedTenants: c.AllowedTenants, DisableInstanceDiscovery: true,
		})
	}
	return nil, errors.New("credential.type must be one of workloadIdentity, managedIdentity, clientSecret, clientCertificate, azureCLI and default")
}
