package etcdseal

import (
	"strings"
	"testing"
	"text/template"

	"github.com/etcdseal/etcdseal/e2e/pki"
)

// Rule is one rule of the configuration file.
type Rule struct {
	Prefix      string
	Unsealed    bool // seal: false
	Deny        bool // plaintext: deny
	Passthrough bool // onUndecryptable: passthrough
	// KEK is "dev" by default; RecoveryKEKs wrap beside it.
	KEK          string
	RecoveryKEKs []string
}

// Config says how to run an etcdseal. Binaries, KEKFile and Endpoints must be
// set. The zero value of everything else means plain text on a loopback port,
// one rule for /registry/secrets/ and the keyring in etcd.
type Config struct {
	// Binaries is the folder that holds etcdseal.
	Binaries string
	// Name tells several proxies of one test apart in the logs.
	Name string
	// KEKFile is the local KEK "dev", as NewKEK makes it.
	KEKFile string
	// KEKs are entries of the file's keks in its own form, by name, in place of KEKFile.
	KEKs map[string]string
	// KeyringPrefix defaults to the constant of that name.
	KeyringPrefix string
	// Outage is the file's outage in its own form; empty leaves it out.
	Outage string

	// Socket is the path of a unix socket to listen on in place of TCP.
	Socket string
	// ListenTLS asks clients for certificates of ClientCAFile.
	ListenTLS    pki.Files
	ClientCAFile string
	AllowedNames []string
	// Advertise are the URLs in lists of members.
	Advertise []string

	// Endpoints are the URLs of etcd; EtcdTLS and EtcdCAFile go with https.
	Endpoints  []string
	EtcdTLS    pki.Files
	EtcdCAFile string
	// EtcdUser and EtcdPasswordFile are the proxy's own user of etcd, if any.
	EtcdUser         string
	EtcdPasswordFile string

	// Rules default to DefaultRules.
	Rules []Rule
	// KeyringFile keeps the keyring in a file in place of etcd, so that the proxy
	// writes nothing of its own there.
	KeyringFile string

	// ShutdownGrace is a duration as the file takes it; empty leaves it out.
	ShutdownGrace string

	// Env is added to the proxy's environment, as NAME=value.
	Env []string

	// Forbidden are plaintexts that must never be seen in the logs or metrics.
	// They are checked when the test ends.
	Forbidden []string
}

// KeyringName and KeyringPrefix are what every proxy of the tests is given.
const (
	KeyringName   = "e2e"
	KeyringPrefix = "/etcdseal/"
	SecretsPrefix = "/registry/secrets/"
)

// DefaultRules seal Kubernetes' secrets.
func DefaultRules() []Rule { return []Rule{{Prefix: SecretsPrefix}} }

// fileTemplate is the configuration file, in the shape that the documents show.
const fileTemplate = `listen:
  address: {{printf "%q" .Address}}
{{- if .ListenTLS.CertFile}}
  tls:
    certFile: {{printf "%q" .ListenTLS.CertFile}}
    keyFile: {{printf "%q" .ListenTLS.KeyFile}}
    clientCAFile: {{printf "%q" .ClientCAFile}}
{{- if .AllowedNames}}
    allowedNames: [{{range $i, $name := .AllowedNames}}{{if $i}}, {{end}}{{printf "%q" $name}}{{end}}]
{{- end}}
{{- else if not .Socket}}
  insecure: true
{{- end}}
{{- if .Advertise}}
  advertise: [{{range $i, $url := .Advertise}}{{if $i}}, {{end}}{{printf "%q" $url}}{{end}}]
{{- end}}
admin: {address: {{printf "%q" .Admin}}}
etcd:
  endpoints:
{{- range .Endpoints}}
    - {{printf "%q" .}}
{{- end}}
{{- if .EtcdCAFile}}
  tls:
    caFile: {{printf "%q" .EtcdCAFile}}
    certFile: {{printf "%q" .EtcdTLS.CertFile}}
    keyFile: {{printf "%q" .EtcdTLS.KeyFile}}
{{- end}}
{{- if .EtcdUser}}
  auth: {username: {{printf "%q" .EtcdUser}}, passwordFile: {{printf "%q" .EtcdPasswordFile}}}
{{- end}}
keks:
{{- range $name, $kek := .KEKs}}
  {{$name}}: {{$kek}}
{{- else}}
  dev: {local: {keyFile: {{printf "%q" .KEKFile}}}}
{{- end}}
rules:
{{- range .Rules}}
  - prefix: {{printf "%q" .Prefix}}
    kek: {{or .KEK "dev"}}
{{- if .RecoveryKEKs}}
    recoveryKEKs: [{{range $i, $name := .RecoveryKEKs}}{{if $i}}, {{end}}{{$name}}{{end}}]
{{- end}}
    seal: {{not .Unsealed}}
    plaintext: {{if .Deny}}deny{{else}}allow{{end}}
{{- if .Passthrough}}
    onUndecryptable: passthrough
{{- end}}
{{- end}}
{{- if .KeyringFile}}
keyring: {name: ` + KeyringName + `, store: file, path: {{printf "%q" .KeyringFile}}}
{{- else}}
keyring: {name: ` + KeyringName + `, store: etcd, prefix: {{or .KeyringPrefix "` + KeyringPrefix + `"}}}
{{- end}}
{{- if .Outage}}
outage: {{.Outage}}
{{- end}}
log: {level: debug}
{{- if .ShutdownGrace}}
shutdownGrace: {{.ShutdownGrace}}
{{- end}}
`

// render is the text of the configuration file with the addresses that the
// harness chose.
func (c Config) render(t testing.TB, address, admin string) string {
	t.Helper()
	if c.Rules == nil {
		c.Rules = DefaultRules()
	}
	parsed, err := template.New("etcdseal.yaml").Parse(fileTemplate)
	if err != nil {
		t.Fatalf("parsing configuration template: %v", err)
	}
	var text strings.Builder
	data := struct {
		Config
		Address, Admin string
	}{c, address, admin}
	if err := parsed.Execute(&text, data); err != nil {
		t.Fatalf("writing configuration: %v", err)
	}
	return text.String()
}
