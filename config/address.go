package config

import (
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// unixScheme begins the address of a unix socket.
const unixScheme = "unix://"

// maxSocketPath is the longest path of a unix socket in bytes: sun_path in
// unix(7) has 108 with a zero at its end.
const maxSocketPath = 107

// socketPath returns the path in the address of a unix socket.
func socketPath(address string) (string, bool) { return strings.CutPrefix(address, unixScheme) }

// resolveAddress makes the path of a unix socket absolute and leaves every
// other address as it is.
func resolveAddress(address, dir string) string {
	path, ok := socketPath(address)
	if !ok || path == "" || filepath.IsAbs(path) {
		return address
	}
	return unixScheme + filepath.Join(dir, path)
}

// checkSocket returns what is wrong with the path of a unix socket, or "".
func checkSocket(path string) string {
	switch {
	case path == "":
		return "no path: write unix:///run/etcdseal/etcd.sock"
	case strings.ContainsRune(path, 0):
		return "a path cannot hold a zero byte"
	case len(path) > maxSocketPath:
		return "the socket's path has " + strconv.Itoa(len(path)) + " bytes: the system takes " + strconv.Itoa(maxSocketPath)
	}
	return ""
}

// checkPlugin returns what is wrong with the endpoint of a KMS plugin, or "". An
// endpoint that is right means the same to kube-apiserver.
func checkPlugin(endpoint string) string {
	path, ok := socketPath(endpoint)
	switch {
	case !ok:
		return "want unix:// and a path, as in unix:///run/kms.sock: a plugin has no other address"
	case strings.HasPrefix(path, "@"):
		return "want three slashes before the name of an abstract socket, as in unix:///@kms"
	case path == "" || path == "/" || path == "/@":
		return "no path: write unix:///run/kms.sock"
	case strings.ContainsAny(path, "%?#") || strings.ContainsFunc(path, isControl):
		return "%, ?, # and control characters mean something else in a URL: choose another path"
	case strings.HasPrefix(path, "/@"):
		return checkSocket(path[1:])
	}
	return checkSocket(path)
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// checkListen returns what is wrong with an address to listen on, or "".
func checkListen(address string) string {
	if strings.Contains(address, "://") {
		return "want host:port or unix:// and a path, not another URL"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isHost(host) && host != "" {
		return "want host:port or unix:// and a path, as in 127.0.0.1:2379"
	}
	if !isPort(port, 0) {
		return "want a port from 0 to 65535"
	}
	return ""
}

// checkEndpoint returns what is wrong with the URL of an etcd member, or "".
func checkEndpoint(endpoint string) string {
	if path, ok := socketPath(endpoint); ok {
		return checkSocket(path)
	}
	const want = "want https://host:port, http://host:port or unix:// and a path"
	u, err := url.Parse(endpoint)
	if err != nil || !strings.HasPrefix(endpoint, "https://") && !strings.HasPrefix(endpoint, "http://") {
		return want
	}
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" || strings.HasSuffix(endpoint, "#") {
		return want + ", and nothing after the port"
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || !isHost(host) || !isPort(port, 1) {
		return want + " with a port from 1 to 65535"
	}
	return ""
}

// isHost says whether host is an IP address, with a zone or not, or could be a
// host name.
func isHost(host string) bool {
	if address, _, _ := strings.Cut(host, "%"); net.ParseIP(address) != nil {
		return true
	}
	if host == "" || len(host) > 253 {
		return false
	}
	for _, c := range host {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}

// isPort says whether port is a number from least to 65535.
func isPort(port string, least uint64) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n >= least
}
