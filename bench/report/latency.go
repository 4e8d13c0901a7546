package report

// Latency is the distribution of the time that calls took at a fixed rate, each from the moment at which it was to start: a call that had to wait for
// its turn took that long too, so that a target that stalls cannot hide it by being asked less often.
type Latency struct {
	Workload string  `json:"workload"`
	Target   string  `json:"target"`
	Rate     float64 `json:"ratePerSecond"` // calls that were to start each second
	Calls    int64   `json:"calls"`
	P50      float64 `json:"p50Micros"`
	P99      float64 `json:"p99Micros"`
	P999     float64 `json:"p999Micros"`
	Max      float64 `json:"maxMicros"`
	Curve    []Point `json:"curve,omitempty"`
}

// Point is one point of a distribution: this share of the calls, in percent, took at most so long.
type Point struct {
	Percentile float64 `json:"percentile"`
	Micros     float64 `json:"micros"`
}

// CurvePercentiles are the points of a curve, denser towards the end where latencies differ.
var CurvePercentiles = [...]float64{1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 97.5, 98, 99, 99.5, 99.75, 99.9, 99.95, 99.99}
