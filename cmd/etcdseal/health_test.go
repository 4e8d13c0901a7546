package main

import (
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/config"
)

// The keyring waits longer for a KEK than the KEK for its vault or plugin.
func TestKEKTimeout(t *testing.T) {
	for _, test := range []struct {
		kek  config.KEK
		want time.Duration
	}{
		{config.KEK{Local: &config.LocalKEK{}}, 35 * time.Second},
		{config.KEK{AzureKeyVault: &config.AzureKEK{Timeout: config.DefaultAzureTimeout}}, 35 * time.Second},
		{config.KEK{AzureKeyVault: &config.AzureKEK{Timeout: 5 * time.Minute}}, 305 * time.Second},
		{config.KEK{KMSv2: &config.KMSv2KEK{Timeout: 20 * time.Second}}, 65 * time.Second},
	} {
		d := &daemon{config: &config.Config{KEKs: map[string]config.KEK{"x": test.kek}}}
		if got := d.kekTimeout(); got != test.want {
			t.Errorf("%+v: got %s, want %s", test.kek, got, test.want)
		}
	}
}
