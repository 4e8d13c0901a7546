package etcdseal

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etcdseal/etcdseal/e2e/process"
)

// attemptLimit bounds one call to the admin endpoint.
const attemptLimit = 15 * time.Second

// crashTexts are what the Go runtime prints when a program is broken.
var crashTexts = []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"}

// Admin gets a path of the admin endpoint. It may be called from any goroutine.
func (p *Proxy) Admin(ctx context.Context, path string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// Metric is the sum of the samples of one metric whose labels, as the text form
// of Prometheus writes them, hold all the given parts. Unknown metrics are 0.
// It may be called from any goroutine.
func (p *Proxy) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	_, text, err := p.Admin(ctx, "/metrics")
	if err != nil {
		return 0, fmt.Errorf("getting metrics: %w", err)
	}
	sum := 0.0
	for line := range strings.Lines(text) {
		sample, value, found := strings.Cut(strings.TrimSpace(line), " ")
		metric, set, _ := strings.Cut(sample, "{")
		if !found || metric != name || !holdsAll(set, labels) {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("reading metric %s: %w", name, err)
		}
		sum += number
	}
	return sum, nil
}

// Calls is the number of successful calls of one method, by its full path.
func (p *Proxy) Calls(t testing.TB, method string) int {
	t.Helper()
	calls, err := p.Metric(context.Background(), "etcdseal_calls_total",
		fmt.Sprintf("method=%q", method), `code="OK"`)
	if err != nil {
		t.Fatal(err)
	}
	return int(calls)
}

func holdsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// checkMetrics looks for planted plaintext in what the admin endpoint serves.
// A proxy that has ended has been checked before or had no chance to answer.
func (p *Proxy) checkMetrics(t testing.TB) {
	if p.process.Exited() != nil {
		return
	}
	for _, path := range []string{"/metrics", "/livez"} {
		_, text, err := p.Admin(context.Background(), path)
		if err != nil {
			t.Errorf("getting %s of etcdseal%s: %v", path, p.cfg.Name, err)
			continue
		}
		p.checkText(t, path, text)
	}
}

// check looks at the log of all runs after the last has ended.
func (p *Proxy) check(t testing.TB) {
	text := p.log.Text(t)
	p.checkText(t, "the log", text)
	for _, crash := range crashTexts {
		if strings.Contains(text, crash) {
			t.Errorf("the log of etcdseal%s holds %q", p.cfg.Name, crash)
		}
	}
}

func (p *Proxy) checkText(t testing.TB, where, text string) {
	for _, secret := range p.cfg.Forbidden {
		if form := process.Holds([]byte(text), secret); form != "" {
			t.Errorf("%s of etcdseal%s holds planted plaintext (%s)", where, p.cfg.Name, form)
		}
	}
}
