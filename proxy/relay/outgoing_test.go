package relay

import (
	"bytes"
	"io"
	"testing"
)

// TestWriteBehindLoans puts frames before, between and behind payloads that are lent.
func TestWriteBehindLoans(t *testing.T) {
	a, b := sockets(t)
	o := &outgoing{}
	one, two := &buffer{b: bytes.Repeat([]byte{1}, leastLent)}, &buffer{b: bytes.Repeat([]byte{2}, leastLent)}
	o.b = append(o.b, "first"...)
	o.lend(one.b, one)
	o.lend(two.b, two)
	o.b = append(o.b, "last"...)
	want := append(append(append([]byte("first"), one.b...), two.b...), "last"...)
	if err := o.writeTo(a); err != nil {
		t.Fatal(err)
	}
	o.release()
	a.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, want %d", len(got), err, len(want))
	}
	if one.loans != 0 || two.loans != 0 {
		t.Errorf("not given back: %d, %d", one.loans, two.loans)
	}
}
