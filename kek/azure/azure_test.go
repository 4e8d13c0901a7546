package azure_test

import (
	"testing"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
	"github.com/etcdseal/etcdseal/kek/kektest"
)

func TestConformance(t *testing.T) {
	l := newLab(t)
	kektest.Run(t, func(t *testing.T) kek.KEK { return l.open(t, nil) })
}

func TestConformanceManagedHSM(t *testing.T) {
	for _, kty := range []string{"oct-HSM", "RSA-HSM"} {
		t.Run(kty, func(t *testing.T) {
			l := newLabAt(t, emulator.VaultConfig{Host: "prod.managedhsm.azure.net"}, kty)
			kektest.Run(t, func(t *testing.T) kek.KEK { return l.open(t, nil) })
		})
	}
}
