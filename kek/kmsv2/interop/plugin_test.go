package interop

import (
	"flag"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kektest"
	"github.com/etcdseal/etcdseal/kek/kmsv2"
)

var endpoint = flag.String("plugin", "", "hold kek/kmsv2 against the plugin that serves `ENDPOINT`, as in unix:///run/kms.sock")

// A plugin that runs on this machine, whosever it is, passes what every KEK has to, and
// kube-apiserver's client and ours open what the other had it wrap.
func TestPlugin(t *testing.T) {
	if *endpoint == "" {
		t.Skip("no plugin is named: start one and say -args -plugin unix:///run/kms.sock")
	}
	kektest.Run(t, func(t *testing.T) kek.KEK {
		k, err := kmsv2.New(kmsv2.Config{Name: "plugin", Endpoint: *endpoint, Timeout: patient})
		if err != nil {
			t.Fatal(err)
		}
		return k
	})
	t.Run("exchange", func(t *testing.T) { exchange(t, *endpoint) })
}
