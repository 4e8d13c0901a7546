package config

import "time"

// AzureKEK is a key in Azure Key Vault or a Managed HSM. Its latest version wraps;
// every version that wrapped something must stay enabled until nothing needs it.
type AzureKEK struct {
	// VaultURL is https:// and the vault's host name, as in
	// https://v.vault.azure.net or https://h.managedhsm.azure.net, without a
	// port or path. Required.
	VaultURL string
	// Key is the key's name, without a version. Required. 1 to 127 letters,
	// digits and dashes.
	Key string
	// Credential is as whom to log in. Required.
	Credential AzureCredential
	// AuthorityHost is the login service's URL, as in
	// https://login.microsoftonline.com. Default: that of the cloud (public,
	// China, US government) to which the vault's host name belongs; for other
	// clouds it is required.
	AuthorityHost string
	// Address is host:port, or a host for port 443, to connect to instead of
	// the vault's host name: a private endpoint that DNS does not know. TLS
	// still checks the vault's name. Default: none.
	Address string
	// CAFile holds, in PEM, authorities that are trusted beside the system's
	// for the vault and the login service, those of a TLS-inspecting proxy for
	// instance. Default: none.
	CAFile string
	// ProxyURL is the HTTP proxy for the vault and the login service, as in
	// http://proxy:3128. Default: what HTTPS_PROXY and NO_PROXY in the
	// environment say. Not with Address. It holds no password: an URL with a
	// user is refused.
	ProxyURL string
	// PollInterval is how often the vault is asked for the latest version,
	// give or take a tenth. A new version is used once it was seen twice,
	// which takes two minutes more at most. Default DefaultAzurePollInterval;
	// between 1s and 24h.
	PollInterval time.Duration
	// TryTimeout is how long one try of a call may take, login included.
	// Default DefaultAzureTryTimeout; between 1s and 5m, and at most Timeout.
	TryTimeout time.Duration
	// Timeout is how long a call may take with its second try and all waiting.
	// Default DefaultAzureTimeout; between 1s and 5m.
	Timeout time.Duration
	// Managed has the key made when there is none, and gives it a rotation
	// policy when it has none. The identity needs the permissions for both.
	// Default false.
	Managed bool
	// KeyType is the type of a key that is made: RSA, RSA-HSM or oct-HSM, the
	// last on a Managed HSM only, which has no RSA. Only with Managed. Default:
	// oct-HSM on a Managed HSM, else RSA.
	KeyType AzureKeyType
	// KeySize is the size in bits of an RSA key that is made: 2048, 3072 or
	// 4096. Only with Managed, and not with oct-HSM. Default
	// DefaultAzureKeySize.
	KeySize int
	// RotateAfterDays is the age in days at which the vault makes another
	// version. Only with Managed. Default DefaultAzureRotateAfterDays; between
	// 7 and 3650.
	RotateAfterDays int
}

// AzureKeyType is the type of a key.
type AzureKeyType string

// The types of keys that can wrap.
const (
	AzureRSA    AzureKeyType = "RSA"
	AzureRSAHSM AzureKeyType = "RSA-HSM"
	AzureOctHSM AzureKeyType = "oct-HSM"
)

// Defaults of AzureKEK.
const (
	DefaultAzurePollInterval    = 5 * time.Minute
	DefaultAzureTryTimeout      = 20 * time.Second
	DefaultAzureTimeout         = 30 * time.Second
	DefaultAzureKeySize         = 3072
	DefaultAzureRotateAfterDays = 90
)

// AzureCredential says as whom to log in. A field that the type does not use is an
// error.
type AzureCredential struct {
	// Type is how to log in. Required; there is no default, since a login that
	// tries one thing after another may find an identity that nobody meant.
	Type AzureCredentialType
	// TenantID is the id of the identity's tenant, not its domain. Required with clientSecret and
	// clientCertificate; with workloadIdentity the default is AZURE_TENANT_ID
	// in the environment, with azureCLI and default whatever they find. Not
	// with managedIdentity.
	TenantID string
	// ClientID is the application's id. Required with clientSecret and
	// clientCertificate; with workloadIdentity the default is AZURE_CLIENT_ID
	// in the environment. With managedIdentity it chooses a user-assigned
	// identity.
	ClientID string
	// ObjectID chooses a user-assigned identity by its object id. Only with
	// managedIdentity, and instead of ClientID.
	ObjectID string
	// ResourceID chooses a user-assigned identity by its resource id. Only
	// with managedIdentity, and instead of ClientID.
	ResourceID string
	// TokenFile is the service account's token, read at a login if it was not
	// read for ten minutes. Only with workloadIdentity. Default: AZURE_FEDERATED_TOKEN_FILE in the
	// environment.
	TokenFile string
	// SecretFile holds the client secret; a newline at its end is not part of
	// it. It is read at each login. Required with clientSecret, and only
	// there.
	SecretFile string
	// CertificateFile holds the certificate and its RSA key, in PEM or PKCS
	// #12 without a password. It is read at each login. Required with
	// clientCertificate, and only there.
	CertificateFile string
	// SendCertificateChain sends the chain with each login, for applications
	// that trust a subject name and issuer. Only with clientCertificate.
	// Default false.
	SendCertificateChain bool
	// AllowedTenants are the ids of tenants besides TenantID in which the vault
	// may be, for an application that is known in several; "*" is all. Not with
	// managedIdentity. Default: none.
	AllowedTenants []string
}

// AzureCredentialType is a way to log in.
type AzureCredentialType string

const (
	// AzureWorkloadIdentity is a Kubernetes service account's federated token.
	AzureWorkloadIdentity AzureCredentialType = "workloadIdentity"
	// AzureManagedIdentity is the machine's identity, or one assigned to it.
	AzureManagedIdentity AzureCredentialType = "managedIdentity"
	// AzureClientSecret is an application's password.
	AzureClientSecret AzureCredentialType = "clientSecret"
	// AzureClientCertificate is an application's certificate.
	AzureClientCertificate AzureCredentialType = "clientCertificate"
	// AzureCLI is whoever is logged in with az, for trying things out.
	AzureCLI AzureCredentialType = "azureCLI"
	// AzureDefault is azidentity's DefaultAzureCredential, which tries one
	// thing after another.
	AzureDefault AzureCredentialType = "default"
)

// defaultAzureKEK returns a KEK of which nothing is said.
func defaultAzureKEK() *AzureKEK {
	return &AzureKEK{PollInterval: DefaultAzurePollInterval, TryTimeout: DefaultAzureTryTimeout, Timeout: DefaultAzureTimeout}
}

func (a *AzureKEK) read(s *section) {
	s.text("vaultURL", &a.VaultURL)
	s.text("key", &a.Key)
	s.sub("credential", a.Credential.read)
	s.text("authorityHost", &a.AuthorityHost)
	s.text("address", &a.Address)
	s.text("caFile", &a.CAFile)
	s.text("proxyURL", &a.ProxyURL)
	s.duration("pollInterval", &a.PollInterval, time.Second, 24*time.Hour)
	s.duration("tryTimeout", &a.TryTimeout, time.Second, 5*time.Minute)
	s.duration("timeout", &a.Timeout, time.Second, 5*time.Minute)
	s.flag("managed", &a.Managed)
	choice(s, "keyType", &a.KeyType, AzureRSA, AzureRSAHSM, AzureOctHSM)
	s.number("keySize", &a.KeySize, 2048, 4096)
	s.number("rotateAfterDays", &a.RotateAfterDays, 7, 3650)
	a.validate(s.report, s.path, s.given("tryTimeout"))
}

func (c *AzureCredential) read(s *section) {
	choice(s, "type", &c.Type, AzureWorkloadIdentity, AzureManagedIdentity, AzureClientSecret, AzureClientCertificate, AzureCLI, AzureDefault)
	s.text("tenantID", &c.TenantID)
	s.text("clientID", &c.ClientID)
	s.text("objectID", &c.ObjectID)
	s.text("resourceID", &c.ResourceID)
	s.text("tokenFile", &c.TokenFile)
	s.text("secretFile", &c.SecretFile)
	s.text("certificateFile", &c.CertificateFile)
	s.flag("sendCertificateChain", &c.SendCertificateChain)
	s.texts("allowedTenants", &c.AllowedTenants)
}
