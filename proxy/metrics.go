package proxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/proxy/wire"
)

// otherMethod labels streams of no method that etcd serves.
const otherMethod = "other"

// resetCode labels streams that ended without a gRPC status.
const resetCode = "reset"

// Metrics are the proxy's Prometheus metrics: a prometheus.Collector, and the
// observer of the keyring. Labels are from closed sets.
type Metrics struct{ metrics }

// NewMetrics returns metrics that are not registered yet.
func NewMetrics() *Metrics {
	m := &Metrics{}
	m.init()
	return m
}

type metrics struct {
	all []prometheus.Collector

	connections prometheus.Gauge
	streams     prometheus.Gauge
	calls       *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	methods     map[string]*methodMetrics

	sealedBytes, openedBytes     prometheus.Counter
	openFailures, watchCancels   prometheus.Counter
	cacheHits, cacheMisses       prometheus.Counter
	kekCalls                     *prometheus.CounterVec
	kekLatency                   *prometheus.HistogramVec
	deks                         *prometheus.CounterVec
	recordsLost, recordsRestored prometheus.Counter
	rewrapped                    prometheus.Counter
	rewrapFailures               *prometheus.CounterVec
	waits                        prometheus.Histogram
	assisted, assistRetries      prometheus.Counter
	requests                     *prometheus.CounterVec
}

// methodMetrics are those of one method, looked up once.
type methodMetrics struct {
	codes   [codes.Unauthenticated + 1]prometheus.Counter
	reset   prometheus.Counter
	latency prometheus.Observer
}

func (m *metrics) init() {
	m.connections = m.gauge("connections", "Client connections that are open.")
	m.streams = m.gauge("streams", "gRPC calls and streams that are open.")
	m.calls = m.counters("calls_total", "Calls that ended, by method and gRPC code; the code is reset for those that were cut off.", "method", "code")
	m.latency = m.histograms("call_duration_seconds", "Time from a call's headers to its end.", "method")
	m.sealedBytes = m.counter("sealed_bytes_total", "Plaintext bytes that were sealed.")
	m.openedBytes = m.counter("opened_bytes_total", "Plaintext bytes that were opened.")
	m.openFailures = m.counter("open_failures_total", "Values that could not be opened.")
	m.watchCancels = m.counter("watches_cancelled_total", "Watches that were cancelled since an event could not be opened.")
	m.assisted = m.counter("assisted_calls_total", "Calls that were answered by means of other calls: comparing and sorting by value.")
	m.assistRetries = m.counter("assisted_retries_total", "Tries of those after the first, since compared keys had changed meanwhile.")
	m.cacheHits = m.counter("dek_cache_hits_total", "DEKs that were wanted for opening and at hand.")
	m.cacheMisses = m.counter("dek_cache_misses_total", "DEKs that were wanted for opening and had to be unwrapped.")
	m.kekCalls = m.counters("kek_calls_total", "Calls to a KEK, by result class.", "kek", "op", "class")
	m.kekLatency = m.histograms("kek_call_duration_seconds", "Duration of calls to a KEK.", "kek", "op")
	m.deks = m.counters("deks_created_total", "DEKs that this process made.", "kek")
	m.recordsLost = m.counter("keyring_records_lost_total", "Records found missing or damaged in the keyring's store.")
	m.recordsRestored = m.counter("keyring_records_restored_total", "Records that this process put back.")
	m.rewrapped = m.counter("keyring_records_rewrapped_total", "Records whose wrappings this process changed by a rotation.")
	m.rewrapFailures = m.counters("keyring_rewrap_failures_total", "Tries to rewrap a record that failed, by what a KEK said; the class is store if the keyring's store was in the way.", "class")
	m.waits = prometheus.NewHistogram(m.histogramOpts("message_wait_seconds", "How long messages waited for a key."))
	m.all = append(m.all, m.waits)
	m.requests = m.counters("http_requests_total", "HTTP requests without gRPC that were answered, by what they asked for and the answer's status.", "api", "status")
	m.methods = map[string]*methodMetrics{otherMethod: m.method(otherMethod)}
	for _, method := range wire.Methods() {
		m.methods[method.Path] = m.method(method.Path)
	}
}

func (m *metrics) method(path string) *methodMetrics {
	mm := &methodMetrics{reset: m.calls.WithLabelValues(path, resetCode), latency: m.latency.WithLabelValues(path)}
	for c := range mm.codes {
		mm.codes[c] = m.calls.WithLabelValues(path, codes.Code(c).String())
	}
	return mm
}

const namespace = "etcdseal"

func (m *metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	m.all = append(m.all, g)
	return g
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	m.all = append(m.all, c)
	return c
}

func (m *metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.all = append(m.all, c)
	return c
}

func (m *metrics) histogramOpts(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}
}

func (m *metrics) histograms(name, help string, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(m.histogramOpts(name, help), labels)
	m.all = append(m.all, h)
	return h
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
}

// StreamStarted implements relay.Observer.
func (m *metrics) StreamStarted(string) { m.streams.Inc() }

// StreamEnded implements relay.Observer.
func (m *metrics) StreamEnded(method string, code int, took time.Duration) {
	m.streams.Dec()
	mm := m.methods[method]
	if mm == nil {
		mm = m.methods[otherMethod]
	}
	if code < 0 || code >= len(mm.codes) {
		mm.reset.Inc()
	} else {
		mm.codes[code].Inc()
	}
	mm.latency.Observe(took.Seconds())
}

func (m *metrics) sealed(bytes int)    { m.sealedBytes.Add(float64(bytes)) }
func (m *metrics) opened(bytes int)    { m.openedBytes.Add(float64(bytes)) }
func (m *metrics) failed()             { m.openFailures.Inc() }
func (m *metrics) watchCancelled()     { m.watchCancels.Inc() }
func (m *metrics) parked(at time.Time) { m.waits.Observe(time.Since(at).Seconds()) }

// answeredHTTP counts a request without gRPC. Both labels are from closed sets.
func (m *metrics) answeredHTTP(api string, status int) {
	m.requests.WithLabelValues(api, http.StatusText(status)).Inc()
}

// CacheHit implements dek.Observer.
func (m *metrics) CacheHit() { m.cacheHits.Inc() }

// CacheMiss implements dek.Observer.
func (m *metrics) CacheMiss() { m.cacheMisses.Inc() }

// KEKCall implements dek.Observer.
func (m *metrics) KEKCall(name, op string, class kek.Class, took time.Duration) {
	m.kekCalls.WithLabelValues(name, op, class.String()).Inc()
	m.kekLatency.WithLabelValues(name, op).Observe(took.Seconds())
}

// DEKCreated implements dek.Observer.
func (m *metrics) DEKCreated(kekName string) { m.deks.WithLabelValues(kekName).Inc() }

// RecordLost implements dek.Observer.
func (m *metrics) RecordLost() { m.recordsLost.Inc() }

// RecordRestored implements dek.Observer.
func (m *metrics) RecordRestored() { m.recordsRestored.Inc() }

// RecordRewrapped implements dek.Observer.
func (m *metrics) RecordRewrapped() { m.rewrapped.Inc() }

// RewrapFailed implements dek.Observer.
func (m *metrics) RewrapFailed(class kek.Class) {
	label := "store"
	if class != 0 {
		label = class.String()
	}
	m.rewrapFailures.WithLabelValues(label).Inc()
}
