package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/bench/load"
	"github.com/etcdseal/etcdseal/bench/report"
)

// TestCallsFigure has every second round twice as slow for all, which the ratios must not notice.
func TestCallsFigure(t *testing.T) {
	for _, c := range []struct {
		seal []float64
		want report.Figure
	}{
		{[]float64{1100, 550}, report.Figure{Value: 1.1, Met: true}},
		{[]float64{900, 450}, report.Figure{Value: 0.9}},
	} {
		all := map[string]*samples{}
		for side, perSecond := range map[string][]float64{SideAlone: {2000, 1000}, SideKMS: {1000, 500}, SideSeal: c.seal, SideTLS: {1, 1}} {
			all[side] = &samples{perSecond: perSecond, latencies: load.NewHistogram()}
		}
		var rep report.Report
		addCalls(&rep, get, 0, func(side string) *samples { return all[side] })
		c.want.Name, c.want.Direction, c.want.Limit = "kube get: calls a second through etcdseal over KMS v2", report.AtLeast, 1
		if diff := cmp.Diff([]report.Figure{c.want}, rep.Figures); diff != "" {
			t.Errorf("figures (-want +got):\n%s", diff)
		}
		if m, ok := rep.Metric("kube get", SideKMS, MetricOverAlone); !ok || m.Median != 0.5 || m.Min != m.Max {
			t.Errorf("KMS v2 over kube-apiserver is %v, %t, want 0.5", m, ok)
		}
	}
	var rep report.Report
	addCalls(&rep, update, 0, func(string) *samples { return &samples{latencies: load.NewHistogram()} })
	if len(rep.Figures) > 0 {
		t.Errorf("updates have the figures %v, want none", rep.Figures)
	}
}

func TestStoredFigure(t *testing.T) {
	for _, c := range []struct {
		seal     []float64
		rsa, aes bool
	}{{[]float64{48, 48}, true, false}, {[]float64{48, 90}, false, false}, {[]float64{42, 42}, true, true}} {
		var rep report.Report
		addStored(&rep, []float64{213, 214}, c.seal, 422)
		if f := rep.Figures; len(f) != 2 || f[0].Met != c.rsa || f[1].Met != c.aes {
			t.Errorf("%v bytes over 422 and 213.5: figures are %+v, want met %t and %t", c.seal, f, c.rsa, c.aes)
		}
	}
}

func TestCheckValue(t *testing.T) {
	plain := value(3)
	for _, c := range []struct {
		name, holds string
		stored      []byte
		known, ok   bool
	}{
		{"plaintext", protobufMagic, encodeSecret("ns", "n", plain), true, true},
		{"plaintext of another value", protobufMagic, encodeSecret("ns", "n", value(4)), true, false},
		{"plaintext that is not known", protobufMagic, encodeSecret("ns", "n", value(4)), false, true},
		{"plaintext in place of an envelope", envelopeMagic, encodeSecret("ns", "n", plain), false, false},
		{"an envelope in place of KMS v2", kmsPrefix, []byte(envelopeMagic + "..."), false, false},
		{"an envelope", envelopeMagic, []byte(envelopeMagic + strings.Repeat("x", 1100)), true, true},
		{"an envelope around plaintext", envelopeMagic, append([]byte(envelopeMagic), plain...), true, false},
		{"KMS v2 with a readable end", kmsPrefix, append([]byte(kmsPrefix), plain[valueSize-partSize:]...), true, false},
	} {
		if err := checkValue("key", c.stored, c.holds, c.known, plain); (err == nil) != c.ok {
			t.Errorf("%s: error is %v, want none: %t", c.name, err, c.ok)
		}
	}
}

func TestParseReads(t *testing.T) {
	const text = `# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 12
grpc_server_handled_total{grpc_code="Canceled",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 100
grpc_server_handled_total{grpc_code="OK",grpc_method="RangeStream",grpc_service="etcdserverpb.KV",grpc_type="server_stream"} 1e+03
grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 100
`
	if got, err := parseReads(strings.NewReader(text)); err != nil || got != 1012 {
		t.Errorf("reads are %v, %v, want 1012", got, err)
	}
	if _, err := parseReads(strings.NewReader("go_threads 7\n")); err == nil {
		t.Error("metrics without the counter were accepted")
	}
}

// TestValuesDiffer keeps updates from being no updates, which kube-apiserver does not write.
func TestValuesDiffer(t *testing.T) {
	for n := range 3 * callSecrets {
		if len(value(n)) != valueSize {
			t.Fatalf("value %d has %d bytes, want %d", n, len(value(n)), valueSize)
		}
		if string(value(n)) == string(value(n+callSecrets)) {
			t.Fatalf("values %d and %d are the same", n, n+callSecrets)
		}
	}
}
