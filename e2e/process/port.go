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
// Nothing keeps it free: the program should listen on it soon.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range portTries {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(portCount))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatalf("closing %s: %v", address, err)
		}
		return address
	}
	t.Fatalf("no free port among %d tries", portTries)
	return ""
}
