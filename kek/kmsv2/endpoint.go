package kmsv2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strings"
)

// maxAddress is the longest address of a unix socket in bytes: sun_path in unix(7)
// has 108, with a zero at the end of a path.
const maxAddress = 107

// parseEndpoint returns the address to dial, of which the first byte is / for a path
// and @ for an abstract socket. It takes a part of what kube-apiserver takes
// (k8s.io/kms/pkg/util.ParseEndpoint), and means the same by it.
func parseEndpoint(endpoint string) (string, error) {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", errors.New("its endpoint is not unix:// and an absolute path, as in unix:///run/kms.sock")
	}
	if strings.ContainsAny(path, "%?#") || strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", errors.New("its endpoint holds %, ?, # or a control character, which mean something else in a URL: choose another path")
	}
	if strings.HasPrefix(path, "/@") {
		if runtime.GOOS != "linux" {
			return "", errors.New("its endpoint is an abstract socket, which only Linux has")
		}
		path = path[1:]
	}
	if len(path) < 2 {
		return "", errors.New("its endpoint has no path, as in unix:///run/kms.sock")
	}
	if len(path) > maxAddress {
		return "", fmt.Errorf("the path in its endpoint has %d bytes, the system takes %d", len(path), maxAddress)
	}
	return path, nil
}

// checkSocket reports something at an address that is not a socket. Nothing there is
// not an error.
func checkSocket(address string) error {
	if strings.HasPrefix(address, "@") {
		return nil
	}
	info, err := os.Stat(address)
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a unix socket", address)
	}
	return nil
}

// dial connects to the plugin.
func dial(ctx context.Context, address string) (net.Conn, error) {
	if err := checkSocket(address); err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", address)
}
