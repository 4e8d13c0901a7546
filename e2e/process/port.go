package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports are taken from a range below the kernel's ephemeral ports, so that no
// outgoing connection takes a port while its server is restarted.
const (
	firstPort = 20000
	portCount = 10000
	portTries = 100
)

// FreeAddress is a loopback address, host:port, on which nothing listens now.
// Until t ends nobody else gets it from FreeAddress, in this process or another:
// not before the program listens on it, and not while it is restarted.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range portTries {
		port := firstPort + rand.IntN(portCount)
		// A socket with a name in the abstract namespace, which is the network's as ports
		// are, can be had once, and is gone with its process (unix(7)).
		reserved, err := net.Listen("unix", fmt.Sprintf("@etcdseal-e2e-port-%d", port))
		if err != nil {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			_ = reserved.Close()
			continue
		}
		t.Cleanup(func() { _ = reserved.Close() })
		if err := listener.Close(); err != nil {
			t.Fatalf("closing %s: %v", address, err)
		}
		return address
	}
	t.Fatalf("no free port among %d tries", portTries)
	return ""
}
