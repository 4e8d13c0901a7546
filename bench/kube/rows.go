package kube

import "github.com/etcdseal/etcdseal/bench/report"

// MetricOverAlone compares the calls a second of a side with those of kube-apiserver alone, and MetricStart the time of a cold start.
const (
	MetricOverAlone = "over kube-apiserver"
	MetricStart     = "time over kube-apiserver's"
)

// sideNames are in the order of the report; Sides have the one for calls alone, too.
var (
	sideNames = []string{SideAlone, SideKMS, SideSeal}
	Sides     = append(sideNames[:3:3], SideTLS)
)

// addCalls makes the rows of one workload, and its figure if it has one. of returns a side's samples.
func addCalls(rep *report.Report, w workload, rate float64, of func(side string) *samples) {
	name := "kube " + w.name
	alone, kms := of(SideAlone), of(SideKMS)
	for _, side := range Sides {
		s := of(side)
		rep.Add(name, side, report.Sampled("calls/s", "", s.perSecond))
		if side != SideAlone {
			rep.Add(name, side, report.Sampled(MetricOverAlone, "", report.Ratios(s.perSecond, alone.perSecond)))
		}
		if side == SideSeal || side == SideTLS {
			rep.Add(name, side, report.Sampled("over KMS v2", "", report.Ratios(s.perSecond, kms.perSecond)))
		}
		rep.Add(name, side, report.Sampled("CPU/call", "us", s.all), report.Sampled("kube-apiserver's", "us", s.server))
		if side != SideAlone {
			rep.Add(name, side, report.Sampled("etcdseal's or plugin's", "us", s.between))
		}
		rep.Add(name, side, report.Sampled("etcd's", "us", s.etcd))
		if s.latencies.Count() > 0 {
			rep.AddLatency(s.latencies.Latency(name, side, rate))
		}
	}
	if w.figure {
		rep.AddSampled("kube "+w.name+": calls a second through etcdseal over KMS v2", report.Ratios(of(SideSeal).perSecond, kms.perSecond), "", report.AtLeast, 1)
	}
}
