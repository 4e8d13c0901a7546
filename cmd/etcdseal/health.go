package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// Descriptions of the metrics of the KEKs' health.
var (
	healthDesc      = prometheus.NewDesc("etcdseal_kek_health", "Always 1; the labels say what the last checks of the KEK showed: the class is ok, or why the KEK does not do it.", []string{"kek", "use", "class"}, nil)
	healthSinceDesc = prometheus.NewDesc("etcdseal_kek_health_since_seconds", "Since when the class of etcdseal_kek_health is as it is, in seconds since 1970.", []string{"kek", "use"}, nil)
)

// uses calls f with what the checks showed of each use of each KEK.
func (d *daemon) uses(f func(kekName, use string, v dek.Verdict)) {
	for _, h := range d.keyring.Health() {
		for _, use := range []struct {
			name string
			dek.Verdict
		}{{"sealing", h.Sealing}, {"opening", h.Opening}} {
			if use.Checked {
				f(h.KEK, use.name, use.Verdict)
			}
		}
	}
}

// kekNotes has a line of /readyz for each use of a KEK. A KEK that cannot be reached is no
// reason not to be ready: the data keys in memory serve on, and whoever took all proxies
// out of service for it would make an outage of the KMS one of the cluster.
func (d *daemon) kekNotes() (notes []string) {
	d.uses(func(kekName, use string, v dek.Verdict) {
		note := fmt.Sprintf("kek %s: %s %s since %s", kekName, use, v.Class, v.Since.UTC().Format(time.RFC3339))
		if v.Version != "" {
			note += fmt.Sprintf(", version %.64q", v.Version)
		}
		notes = append(notes, note)
	})
	return notes
}

// keksReady is the part of readiness that takes KEKs which allow opening what is in use.
func (d *daemon) keksReady(context.Context) error { return d.keyring.OpeningDenied() }

// collectHealth shows the KEKs' health. The labels are from closed sets.
func (c *collector) collectHealth(to chan<- prometheus.Metric) {
	c.daemon.uses(func(kekName, use string, v dek.Verdict) {
		to <- prometheus.MustNewConstMetric(healthDesc, prometheus.GaugeValue, 1, kekName, use, v.Class.String())
		to <- prometheus.MustNewConstMetric(healthSinceDesc, prometheus.GaugeValue, float64(v.Since.Unix()), kekName, use)
	})
}

// kekTimeout is how long the keyring waits for a KEK: somewhat longer than any provider
// waits by itself, so that it is the provider who says what is wrong.
func (d *daemon) kekTimeout() time.Duration {
	longest := time.Duration(dek.DefaultKEKTimeout)
	for _, k := range d.config.KEKs {
		if k.AzureKeyVault != nil {
			longest = max(longest, k.AzureKeyVault.Timeout+5*time.Second)
		}
		if k.KMSv2 != nil {
			longest = max(longest, 3*k.KMSv2.Timeout+5*time.Second)
		}
	}
	return longest
}
