package rig

import (
	"crypto/tls"
	"time"
)

// Certificates are those of a throw-away authority for 127.0.0.1, as files, for a level that starts processes of its own.
type Certificates struct {
	CA                    string
	ServerCert, ServerKey string
	ClientCert, ClientKey string      // without a common name, which etcd would take for a user
	Client                *tls.Config // trusts the authority and has the client's certificate
}

// NewCertificates writes them into dir.
func NewCertificates(dir string) (Certificates, error) {
	p, err := newPKI(dir, time.Now())
	if err != nil {
		return Certificates{}, err
	}
	return Certificates{CA: p.ca, ServerCert: p.serverCert, ServerKey: p.serverKey, ClientCert: p.clientCert, ClientKey: p.clientKey, Client: p.client}, nil
}
