package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/bench/child"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{9, 1, 2}, spread{2, 1, 9}},
		{[]float64{4, 1, 2, 9}, spread{3, 1, 9}},
	} {
		if got := spreadOf(c.in); got != c.want {
			t.Errorf("spread of %v is %v, want %v", c.in, got, c.want)
		}
	}
	if diff := cmp.Diff([]float64{2, 0.5}, ratios([]float64{4, 1}, []float64{2, 2})); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
}

func TestParseMetrics(t *testing.T) {
	const text = "# HELP a b\n# TYPE a gauge\ngo_memstats_heap_alloc_bytes 1.5e+06\nrpc{code=\"OK\"} 7\ngo_threads 8\nbroken x\n"
	if diff := cmp.Diff(map[string]float64{"go_memstats_heap_alloc_bytes": 1.5e6, "go_threads": 8}, parseMetrics(text)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestOptionsReportEverythingAtOnce(t *testing.T) {
	var stderr bytes.Buffer
	_, code, done := parseOptions([]string{"-only", "get,fly", "-targets", "direct,none", "-o", "xml", "-rounds", "0", "-watches", "9"}, &stderr)
	if code != 2 || !done {
		t.Errorf("exit status %d, done %t, want 2, true", code, done)
	}
	for _, want := range []string{`"fly"`, `"none"`, `"xml"`, "-rounds", "-watches"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%s is not reported in:\n%s", want, stderr.String())
		}
	}
	if o, _, done := parseOptions([]string{"-targets", "direct,tcpcopy"}, io.Discard); done || o.needsSeal() {
		t.Errorf("done %t, needs etcdseal %t without an etcdseal target", done, o.needsSeal())
	}
}

// TestReport feeds samples in which every second round is twice as slow for all: the ratio must not notice.
func TestReport(t *testing.T) {
	r := &report{Rounds: 2}
	targets := []*target{{name: targetDirect}, {name: targetTCPCopy, process: &child.Process{}}, {name: targetSeal, process: &child.Process{}}}
	r.addCalls(partGet, targets, []sample{
		{callsPerSecond: []float64{1000, 500}},
		{callsPerSecond: []float64{900, 450}, cpuPerCall: []float64{10, 20}},
		{callsPerSecond: []float64{800, 400}, cpuPerCall: []float64{21, 42}},
	})
	want := []figure{{Name: "processor time over TCP copy, get", Value: 2.1, Limit: 2.2, Met: true}}
	if diff := cmp.Diff(want, r.Figures); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	if got := *r.Calls[2].OverDirect; got != (spread{0.8, 0.8, 0.8}) {
		t.Errorf("calls over direct are %v, want 0.8", got)
	}
	r.addMemory("idle watch stream", 100, footprint{PSS: 1000, Heap: 500, Stacks: 100}, footprint{PSS: 301_000, Heap: 90_500, Stacks: 10_100}, 2048)
	if m := r.Memory[0]; m.PSSEach != 3000 || m.LiveEach != 1000 {
		t.Errorf("each watch takes %d and %d bytes, want 3000 and 1000", m.PSSEach, m.LiveEach)
	}
	if r.met() {
		t.Error("3000 bytes for a watch are within the limit of 2048")
	}
	r.addOverhead(48)
	r.addOverhead(49)
	if f := r.Figures[len(r.Figures)-1]; f.Met || f.Value != 49 {
		t.Errorf("overhead is %+v, want 49 and missed", f)
	}
	for value, met := range map[float64]bool{9: false, 10: true, 11: false} {
		r.addExact("unwraps", value, 10)
		if f := r.Figures[len(r.Figures)-1]; f.Met != met {
			t.Errorf("%v unwraps where 10 are wanted: met %t", value, f.Met)
		}
	}
	var table, asJSON bytes.Buffer
	if err := r.write(&table, "table"); err != nil || !strings.Contains(table.String(), "MISSED") {
		t.Errorf("table does not say MISSED (%v):\n%s", err, table.String())
	}
	if err := r.write(&asJSON, "json"); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(asJSON.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &back); diff != "" {
		t.Errorf("report after JSON (-want +got):\n%s", diff)
	}
}

func TestTCPCopy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tcpCopy(ctx, l, echo.Addr().String()) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	go c.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("copied bytes differ from those sent (%v)", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := c.Read(got); err == nil {
		t.Error("connection is open after the copy ended")
	}
}

func TestPKI(t *testing.T) {
	p, err := newPKI(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(p.serverCert, p.serverKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.client.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	subject := make(chan string, 1)
	go func() {
		defer close(subject)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if server := c.(*tls.Conn); server.Handshake() == nil {
			subject <- server.ConnectionState().PeerCertificates[0].Subject.CommonName
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), p.client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if name, ok := <-subject; !ok || name != "" {
		t.Errorf("server accepted the client: %t, as %q, want accepted without a common name", ok, name)
	}
}
