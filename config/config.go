// Package config turns etcdseal's YAML file into a checked struct.
//
// The package guarantees that a Config which Load returns is complete and free
// of contradictions: defaults are filled in, every name that is referred to
// exists, every path is absolute and every file that must be there could be
// opened. It is strict, because a misspelt field in a security product is a
// protection that is silently off: unknown, duplicated and contradictory fields
// are errors, a null value counts as not given, and all problems of a file are
// reported together, each with the path of its field and what to do about it.
//
// The package holds no secret: it names files and never reads the keys,
// passwords or certificates in them.
package config

import "time"

// Config is the whole file. Load is the way to get one; the zero value is not
// usable. A Config is plain data and is not changed after Load, so it may be
// read by any number of goroutines.
type Config struct {
	// Listen is where clients connect. Required.
	Listen Listen
	// Admin is where /livez, /readyz and /metrics are served. Has a default.
	Admin Admin
	// Etcd is the cluster behind the proxy. Required.
	Etcd Etcd
	// KEKs are the key-encryption keys by name. At least one is required. One
	// that no rule names is still used to open what it sealed earlier. A name is
	// written into the keyring's records and must stay the same from then on.
	KEKs map[string]KEK
	// Rules say which keys are sealed and how; the longest prefix that matches
	// an etcd key wins, and a key under no rule passes untouched. Default: one
	// rule for DefaultRulePrefix with the only KEK. Never empty after Load, and
	// in the order of the file.
	Rules []Rule
	// Keyring is the set of data keys. Required.
	Keyring Keyring
	// AllowMethods are full names of gRPC methods, as in
	// /etcdserverpb.KV/Example, that etcdseal does not know and forwards
	// untouched all the same; values in them are neither sealed nor opened. For
	// an etcd that is newer than etcdseal; one that etcdseal knows is an error.
	// Default: none, and what is not known is refused.
	AllowMethods []string
	// Limits bound what one client can make the proxy hold. Has defaults.
	Limits Limits
	// Outage says what happens when a KEK says no, or nothing. Has defaults.
	Outage Outage
	// Audit is where each use of a key is written down. Default: nowhere.
	Audit Audit
	// Log says what is logged. Has a default.
	Log Log
	// ShutdownGrace is how long calls in flight may go on after SIGTERM or
	// SIGINT before their connections are closed. Watches are not waited for.
	// Default DefaultShutdownGrace; 0s closes at once; at most one hour.
	ShutdownGrace time.Duration
}

// Listen is the address that stands in etcd's place.
type Listen struct {
	// Address is host:port, or unix:// and the path of a socket that is created
	// with mode 0600. Required. Port 0 takes a free port, which is logged.
	Address string
	// Insecure accepts TCP clients that show no certificate: in plain text, or
	// under TLS when TLS is set. It must be said even on loopback, since whoever
	// can connect reads every secret that etcd's own access control gives out.
	// Default false. It is an error on a unix socket, where file modes decide.
	Insecure bool
	// Advertise are the URLs by which clients reach etcdseal: https://host:port,
	// http://host:port or unix:// and a path. With them, lists of members name
	// these in place of each member's own client URLs, so that a client which
	// takes its endpoints from etcd (clientv3's Sync, kubeadm) does not go on
	// without etcdseal. They are the same for all members and should be reachable
	// by all clients; what etcd itself stores does not change. Default: none, and
	// the lists are etcd's own.
	Advertise []string
	// TLS is the proxy's certificate and which clients it accepts. Required on
	// TCP unless Insecure is set, an error on a unix socket. The zero value
	// stands for no TLS.
	TLS ListenTLS
}

// ListenTLS is the listener's side of TLS. The files are read again on SIGHUP,
// and by new connections within 10 s of a change.
type ListenTLS struct {
	// CertFile is the proxy's certificate chain in PEM.
	CertFile string
	// KeyFile is the private key of CertFile in PEM.
	KeyFile string
	// ClientCAFile holds, in PEM, the authorities whose client certificates are
	// accepted. Required unless Listen.Insecure is set.
	ClientCAFile string
	// AllowedNames are the names of which a client's certificate must bear one,
	// as common name, DNS name or URI; there are no wildcards. Default: none,
	// which accepts every certificate that ClientCAFile vouches for.
	AllowedNames []string
}

// Admin is the plain HTTP endpoint of probes and metrics. It never serves a
// value or a key.
type Admin struct {
	// Address is host:port. Default DefaultAdminAddress. Port 0 takes a free
	// port, which is logged.
	Address string
}

// Etcd is the cluster behind the proxy and how to reach it.
type Etcd struct {
	// Endpoints are URLs: https://host:port, http://host:port or
	// unix:///path/to/socket. At least one is required, and either all or none
	// are https; each client connection is paired with a connection to one of
	// them that is healthy.
	Endpoints []string
	// TLS is used with the https endpoints. The zero value stands for the
	// system's authorities and no client certificate.
	TLS EtcdTLS
	// Auth is the etcd user of the proxy's own calls (keyring, probes). Clients'
	// calls carry the clients' own tokens. Default: no user.
	Auth EtcdAuth
	// ProbeInterval is how often a healthy endpoint's state is asked; others are
	// asked every second, or as often as this if it is less. Default
	// DefaultProbeInterval; between 100ms and 10m.
	ProbeInterval time.Duration
	// AllowClientCN accepts an EtcdTLS certificate that has a common name. With
	// etcd's authentication on, such a name makes every call without a token act
	// as the etcd user of that name, so it is refused by default.
	AllowClientCN bool
}

// EtcdTLS is the proxy's side of TLS towards etcd. The files are read again on
// SIGHUP, and by new connections within 10 s of a change.
type EtcdTLS struct {
	// CAFile holds, in PEM, the authorities that etcd's certificates are checked
	// against. Default: the system's.
	CAFile string
	// CertFile is the proxy's client certificate in PEM. Default: none.
	CertFile string
	// KeyFile is the private key of CertFile in PEM.
	KeyFile string
	// ServerName is the name that etcd's certificates must bear. Default: the
	// host of each endpoint.
	ServerName string
}

// EtcdAuth is an etcd user. Both fields are set or none.
type EtcdAuth struct {
	// Username is the user's name in etcd.
	Username string
	// PasswordFile holds the password; a newline at its end is not part of it. It
	// is read again at every login.
	PasswordFile string
}

// KEK is one key-encryption key. Exactly one field is set.
type KEK struct {
	// Local is a key in a file of this machine.
	Local *LocalKEK
	// AzureKeyVault is a key in Azure Key Vault or a Managed HSM.
	AzureKeyVault *AzureKEK
	// KMSv2 is a key behind a Kubernetes KMS v2 plugin on this machine.
	KMSv2 *KMSv2KEK
}

// LocalKEK is a key file as `etcdseal keyring new-kek` makes it.
type LocalKEK struct {
	// KeyFile is the key file, which only its owner may read. Required.
	KeyFile string
}

// KMSv2KEK is a Kubernetes KMS v2 plugin, as kube-apiserver would use it.
type KMSv2KEK struct {
	// Endpoint is the plugin's socket: unix:// and a path, or unix:///@ and the
	// name of an abstract socket, which has no file modes. The characters %, ?
	// and # cannot be in it. The plugin need not run when etcdseal starts.
	// Required.
	Endpoint string
	// Timeout bounds each request to the plugin. One that is lost is made once
	// more, and nothing takes longer than three timeouts in all.
	// Default DefaultKMSv2Timeout; between 100ms and 20s.
	Timeout time.Duration
	// PollInterval is how often the plugin is asked for its status, and with it
	// for its key id; while it fails, every ten seconds or as often as this if it
	// is less. Another key id is believed when a poll has named it twice. Some
	// plugins use the key for each status. Default DefaultKMSv2PollInterval;
	// between 1s and 1h.
	PollInterval time.Duration
}

// Rule says what happens to the values of the keys under one prefix.
type Rule struct {
	// Prefix is the beginning of the etcd keys. Required, unique, and apart from
	// the keyring's reserved prefix.
	Prefix string
	// KEK is the name of the KEK that wraps the data keys of this rule. May be
	// left out when there is only one KEK.
	KEK string
	// RecoveryKEKs name further KEKs that can open what KEK can. Default: none.
	RecoveryKEKs []string
	// Seal says whether what clients write is sealed. False opens envelopes but
	// writes plaintext, for rolling out and for leaving. Default true.
	Seal bool
	// Plaintext says what a client that reads a value without an envelope gets.
	// Default PlaintextAllow.
	Plaintext PlaintextPolicy
	// OnUndecryptable says what a client that reads an envelope which cannot be
	// opened gets. Default UndecryptableFail.
	OnUndecryptable UndecryptablePolicy
}

// PlaintextPolicy is what becomes of a stored value without an envelope.
type PlaintextPolicy string

const (
	// PlaintextAllow hands it out as it is.
	PlaintextAllow PlaintextPolicy = "allow"
	// PlaintextDeny fails the call with FailedPrecondition.
	PlaintextDeny PlaintextPolicy = "deny"
)

// UndecryptablePolicy is what becomes of an envelope that cannot be opened.
type UndecryptablePolicy string

const (
	// UndecryptableFail fails the call and names the key.
	UndecryptableFail UndecryptablePolicy = "fail"
	// UndecryptablePassthrough hands out the untouched envelope.
	UndecryptablePassthrough UndecryptablePolicy = "passthrough"
)

// Keyring is where the wrapped data keys are and whose they are.
type Keyring struct {
	// Name is bound into every data key, so that the records of one cluster are
	// refused by another. Required; it must never change afterwards. 1 to 128 of
	// the characters A-Z, a-z, 0-9, dot, underscore and dash.
	Name string
	// Store is where the records are. Default StoreEtcd.
	Store StoreKind
	// Prefix is the reserved etcd prefix of the records, which clients may read
	// but not write. Default DefaultKeyringPrefix. Only with StoreEtcd; empty
	// with StoreFile.
	Prefix string
	// Path is the file of the records. Required with StoreFile, and only there.
	Path string
	// AuthKeyFile holds a key without which nobody can make a data key that this
	// keyring accepts. Default: none. It must stay the same afterwards.
	AuthKeyFile string
}

// StoreKind names a keyring store.
type StoreKind string

const (
	// StoreEtcd keeps the records in the etcd that holds the values, so that a
	// snapshot of it has both.
	StoreEtcd StoreKind = "etcd"
	// StoreFile keeps the records in one local file, for a single proxy.
	StoreFile StoreKind = "file"
)

// Limits bound the memory that clients can claim.
type Limits struct {
	// MaxRequestBytes is the largest request message, in bytes, that is accepted
	// from a client. Default DefaultMaxRequestBytes, which is etcd's own limit:
	// raise both together. At least 1024 and at most 2147483647.
	MaxRequestBytes int
	// MemoryBytes is how much memory, in bytes, the messages of all clients
	// together may take while they are being put together for sealing or
	// opening; what does not fit waits, and a message that is larger than all of
	// it is let in alone. Default DefaultMemoryBytes. At least 1048576 and at
	// most 1099511627776.
	MemoryBytes int
}

// Outage says what happens to data keys that are in memory when the KEKs that wrap them
// say no, or do not answer. Each is about one data key and all the KEKs that wrap it: as
// long as one of them answers, nothing happens. So whoever wants to revoke a key revokes
// the recovery KEKs, too. Keys under no rule notice none of it.
type Outage struct {
	// CheckInterval is how often each KEK in use is asked to wrap and to unwrap, to
	// find out whether it still does. A KEK that says no to wrapping (it is
	// disabled, deleted, expired, or the permission is gone) stops sealing at the
	// next check, and one that is back lets it go on at the next one. Default
	// DefaultCheckInterval, which is two key operations a minute, KEK and process;
	// between 1s and 1h.
	CheckInterval time.Duration
	// DeniedGrace is how long after a KEK was last seen to unwrap what it now
	// refuses to, values are still opened. Then the data keys are forgotten, and
	// each reading asks the KEK. No answer after a no counts as a no. It takes
	// effect at a check. Default DefaultDeniedGrace; between 1s and 24h.
	DeniedGrace time.Duration
	// OfflineLimit is how long after a KEK last answered values are sealed and
	// opened with the data keys that are in memory while it does not answer
	// (network, server errors, failed login, throttling). Then they are forgotten.
	// It takes effect at a check. 0s is no limit. Default 0s; at most 8760h.
	OfflineLimit time.Duration
}

// Audit is where a JSON line goes for each use of a KEK and each data key that is made,
// rewrapped, stopped or forgotten, before that takes effect. At most one of File and Stdout is set.
type Audit struct {
	// File is appended to. It is made with mode 0600 if it is not there, and opened
	// anew on SIGHUP, so that it can be moved away. Nobody else may have the right
	// to write to it.
	File string
	// Stdout writes the lines to standard output. Default false.
	Stdout bool
	// OnFailure says what happens to an operation whose line cannot be written.
	// Default AuditFail.
	OnFailure AuditFailure
}

// AuditFailure is what becomes of an operation whose audit line cannot be written.
type AuditFailure string

const (
	// AuditFail fails it: no data key is made or unwrapped, those in memory serve
	// on, and /readyz says so.
	AuditFail AuditFailure = "fail"
	// AuditContinue carries it out. The log and a metric tell of it.
	AuditContinue AuditFailure = "continue"
)

// Log says what is logged.
type Log struct {
	// Level is the lowest level that is logged. Changes of state are at info,
	// single calls at debug. Default LogInfo.
	Level LogLevel
}

// LogLevel names a level of log/slog in lower case.
type LogLevel string

const (
	// LogDebug logs single calls too.
	LogDebug LogLevel = "debug"
	// LogInfo logs changes of state and everything that is wrong.
	LogInfo LogLevel = "info"
	// LogWarn logs only what is wrong or will be.
	LogWarn LogLevel = "warn"
	// LogError logs only failures.
	LogError LogLevel = "error"
)

// Defaults of the fields that may be left out.
const (
	DefaultAdminAddress      = "127.0.0.1:2381"
	DefaultRulePrefix        = "/registry/secrets/"
	DefaultKeyringPrefix     = "/etcdseal/"
	DefaultMaxRequestBytes   = 2 << 20
	DefaultMemoryBytes       = 256 << 20
	DefaultProbeInterval     = 5 * time.Second
	DefaultShutdownGrace     = 5 * time.Second
	DefaultCheckInterval     = time.Minute
	DefaultDeniedGrace       = 10 * time.Minute
	DefaultKMSv2Timeout      = 3 * time.Second
	DefaultKMSv2PollInterval = time.Minute
)
