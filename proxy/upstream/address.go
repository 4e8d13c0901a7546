package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
)

// address is one parsed endpoint.
type address struct {
	name    string // as configured
	network string // "tcp" or "unix"
	target  string // host:port or a path
	host    string // the name that a certificate must bear
	secure  bool
}

// authority is the :authority of calls to the address and what TLS credentials get to see.
func (a address) authority() string {
	if a.network == "unix" {
		return a.host
	}
	return a.target
}

// parseEndpoints parses all endpoints and reports every problem at once, by index: an endpoint that is refused may hold a password.
func parseEndpoints(endpoints []string) ([]address, error) {
	if len(endpoints) == 0 {
		return nil, errors.New("validating etcd endpoints: at least one is needed")
	}
	var addresses []address
	var errs []error
	seen := make(map[string]bool)
	for i, endpoint := range endpoints {
		a, err := parseEndpoint(endpoint)
		if err != nil {
			errs = append(errs, fmt.Errorf("validating etcd endpoints[%d]: %w", i, err))
			continue
		}
		if seen[a.network+a.target] {
			errs = append(errs, fmt.Errorf("validating etcd endpoints[%d]: it is there twice", i))
		}
		seen[a.network+a.target] = true
		addresses = append(addresses, a)
		if a.secure != addresses[0].secure {
			errs = append(errs, fmt.Errorf("validating etcd endpoints[%d]: endpoints with and without TLS cannot be mixed", i))
		}
	}
	return addresses, errors.Join(errs...)
}

// parseEndpoint parses an endpoint as etcd's client does (client/v3/internal/endpoint), except that it insists on a scheme, so that nobody gets plain TCP
// without saying so, and on nothing but an address.
func parseEndpoint(endpoint string) (address, error) {
	scheme, rest, ok := strings.Cut(endpoint, "://")
	if !ok {
		return address{}, errors.New("it needs a scheme: https://host:port, http://host:port, unixs:///path or unix:///path")
	}
	a := address{name: endpoint, secure: scheme == "https" || scheme == "unixs"}
	switch scheme {
	case "unix", "unixs":
		if !path.IsAbs(rest) {
			return address{}, fmt.Errorf("the path of %s:// must be absolute", scheme)
		}
		// What follows a colon counts as a port, which gRPC does not verify.
		host, _, _ := strings.Cut(path.Base(rest), ":")
		a.network, a.target, a.host = "unix", rest, host
		return a, nil
	case "http", "https":
	default:
		return address{}, fmt.Errorf("the scheme %q is none of https, http, unixs, unix", scheme)
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return address{}, errors.New("it is not a URL")
	}
	if u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return address{}, errors.New("nothing may stand before the host or after the port")
	}
	if u.Hostname() == "" || u.Port() == "" {
		return address{}, errors.New("it needs a host and a port")
	}
	a.network, a.target, a.host = "tcp", net.JoinHostPort(u.Hostname(), u.Port()), u.Hostname()
	return a, nil
}
