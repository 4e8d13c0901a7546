package main

import (
	"cmp"
	"errors"
	"net"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// Descriptions of the metrics of the process as a whole.
var (
	buildDesc = prometheus.NewDesc("etcdseal_build_info", "Always 1; the labels say which build this is.", []string{"version", "goversion"}, nil)
	etcdDesc  = prometheus.NewDesc("etcdseal_etcd_endpoint_healthy", "Whether the last probe found the etcd endpoint fit for use.", []string{"endpoint"}, nil)
	pairsDesc = prometheus.NewDesc("etcdseal_etcd_endpoint_connections", "Client connections that are paired with one to the etcd endpoint.", []string{"endpoint"}, nil)
	sealDesc  = prometheus.NewDesc("etcdseal_sealing_possible", "Whether values can be sealed with the KEK, as far as the last try showed.", []string{"kek"}, nil)
	whyDesc   = prometheus.NewDesc("etcdseal_sealing_failure", "1 with the reason while values cannot be sealed with the KEK; absent otherwise.", []string{"kek", "reason"}, nil)
	wrapDesc  = prometheus.NewDesc("etcdseal_keyring_records", "Records of the keyring that a KEK is to wrap, by whether it does: by its current version, by older ones only, or not at all (missing).", []string{"kek", "state"}, nil)
	certDesc  = prometheus.NewDesc("etcdseal_certificate_not_after_seconds", "When the certificate in use expires, in seconds since 1970.", []string{"side"}, nil)
)

// lostDesc describes a metric that is there only with an audit log.
var lostDesc = prometheus.NewDesc("etcdseal_audit_lines_lost_total", "Audit lines that could not be written.", nil, nil)

// collector shows the state of a daemon at the moment it is asked. Its labels are
// from closed sets: the build's, and the configuration's endpoints.
type collector struct{ daemon *daemon }

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	to <- buildDesc
	to <- etcdDesc
	to <- pairsDesc
	to <- sealDesc
	to <- whyDesc
	to <- wrapDesc
	to <- certDesc
	to <- lostDesc
	to <- healthDesc
	to <- healthSinceDesc
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(buildDesc, 1, buildVersion(), runtime.Version())
	for _, state := range c.daemon.upstream.State() {
		healthy := 0.0
		if state.Health == upstream.Healthy {
			healthy = 1
		}
		gauge(etcdDesc, healthy, state.Endpoint)
		gauge(pairsDesc, float64(state.Pairs), state.Endpoint)
	}
	for name, err := range c.sealing() {
		if err == nil {
			gauge(sealDesc, 1, name)
			continue
		}
		gauge(sealDesc, 0, name)
		gauge(whyDesc, 1, name, failureReason(err))
	}
	for _, w := range c.daemon.keyring.Wrapped() {
		gauge(wrapDesc, float64(w.Current), w.KEK, "current")
		gauge(wrapDesc, float64(w.Older), w.KEK, "older")
		gauge(wrapDesc, float64(w.Missing), w.KEK, "missing")
	}
	c.collectHealth(to)
	if log := c.daemon.audit; log != nil {
		to <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(log.Lost()))
	}
	for side, expiry := range map[string]func() (time.Time, bool){
		"listen": c.daemon.listener.CertificateExpiry,
		"etcd":   c.daemon.upstream.CertificateExpiry,
	} {
		if at, ok := expiry(); ok {
			gauge(certDesc, float64(at.Unix()), side)
		}
	}
}

// sealing returns why values cannot be sealed with each KEK that the rules name, nil
// if they can. Rules that share a KEK can differ in those for recovery.
func (c *collector) sealing() map[string]error {
	states := map[string]error{}
	for _, state := range c.daemon.keyring.Sealing() {
		states[state.KEK] = cmp.Or(states[state.KEK], state.Err)
	}
	return states
}

// failureReason puts an error into one word of a closed set: those of kek.Class,
// prefixed, and two for the keyring's store.
func failureReason(err error) string {
	if fromKEK := (*kek.Error)(nil); errors.As(err, &fromKEK) {
		return "kek_" + kek.ClassOf(err).String()
	}
	if errors.Is(err, dek.ErrStoreUnavailable) {
		return "store_unavailable"
	}
	return "store_refused"
}

// address writes a network address as the configuration does.
func address(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix://" + a.String()
	}
	return a.String()
}
