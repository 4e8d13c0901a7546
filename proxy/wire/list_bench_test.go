package wire

import (
	"slices"
	"testing"
)

// portion is how much of a message comes in at a time, a frame of HTTP/2.
const portion = 16 << 10

// listed is how many key-value pairs the list of the benchmarks has.
const listed = 500

// opened prepares every value to lose its envelope and returns what stands for
// opening one.
func (s *Scan) opened() func(i int) []byte {
	for i := range s.Values {
		v := &s.Values[i]
		v.NewLen, v.Replace = len(v.Old)-overhead, true
	}
	return func(i int) []byte {
		old := s.Values[i].Old
		return old[prefixed : len(old)-overhead+prefixed]
	}
}

// openPortions opens a message as a proxy does while it comes in.
func (s *Scan) openPortions(t testing.TB, work, msg []byte) int {
	read, written := 0, 0
	for have := 0; have < len(msg); {
		have += copy(work[have:], msg[have:min(have+portion, len(msg))])
		whole, _ := Whole(work[read:have])
		if err := s.Parse(RangeResponse, work[read:read+whole]); err != nil {
			t.Fatal(err)
		}
		written = len(s.InPlaceFunc(work[:written], s.opened()))
		read += whole
	}
	return written
}

// BenchmarkList is what is done to a list of 500 values of 1 KiB without the
// cryptography. Copy is the share that nothing can save: the sealed message is put
// where it is opened, and the opened values are moved together.
func BenchmarkList(b *testing.B) {
	s, msg := new(Scan), marshal(b, rangeResponse(listed))
	work := slices.Clone(msg)
	values := slices.Clone(parse(b, RangeResponse, work).Values)
	for _, c := range []struct {
		name string
		do   func(b *testing.B)
	}{
		{"Copy", func(*testing.B) {
			copy(work, msg)
			for i := range values {
				at := int(values[i].field.data)
				copy(work[at-i*overhead:], work[at+prefixed:][:1024])
			}
		}},
		{"Whole", func(*testing.B) { Whole(msg) }},
		{"Parse", func(b *testing.B) {
			if err := s.Parse(RangeResponse, msg); err != nil {
				b.Fatal(err)
			}
		}},
		{"Open", func(b *testing.B) {
			copy(work, msg)
			if err := s.Parse(RangeResponse, work); err != nil {
				b.Fatal(err)
			}
			s.InPlaceFunc(nil, s.opened())
		}},
		{"OpenPortions", func(b *testing.B) { s.openPortions(b, work, msg) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.do(b)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*listed), "ns/pair")
			b.ReportMetric(0, "ns/op")
		})
	}
}
