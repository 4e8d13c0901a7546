package etcdstore_test

import (
	"fmt"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	n := 0
	dektest.RunStore(t, func(*testing.T) (a, b dek.Store) {
		n++ // a keyring of its own for each check
		prefix := fmt.Sprintf("/keyring-%d/", n)
		return s.dial(prefix), s.dial(prefix)
	})
}
