package relay

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
)

// blockPair is an encoder of this package and a plain decoder behind it, and the other
// way round.
type blockPair struct {
	ours   *encoder
	theirs *hpack.Decoder

	plain bytes.Buffer
	enc   *hpack.Encoder
	dec   *decoder
	check *hpack.Decoder
}

func newBlockPair() *blockPair {
	p := &blockPair{ours: newEncoder(), theirs: hpack.NewDecoder(tableSize, nil), dec: newDecoder(), check: hpack.NewDecoder(tableSize, nil)}
	p.enc = hpack.NewEncoder(&p.plain)
	return p
}

// pass sends a list both ways and returns the block that this package's encoder made.
func (p *blockPair) pass(t *testing.T, list []hpack.HeaderField) []byte {
	t.Helper()
	block := bytes.Clone(p.ours.encode(list))
	got, err := p.theirs.DecodeFull(block)
	if err != nil {
		t.Fatalf("encoding %v: a plain decoder says of %x: %v", list, block, err)
	}
	if diff := cmp.Diff(timeoutsLast(list), got); diff != "" {
		t.Errorf("encoded (-want +got):\n%s", diff)
	}
	p.plain.Reset()
	for _, f := range list {
		if err := p.enc.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.dec.decode(p.plain.Bytes()); err != nil {
		t.Fatalf("decoding %x: %v", p.plain.Bytes(), err)
	}
	want, err := p.check.DecodeFull(p.plain.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append([]hpack.HeaderField{}, want...), append([]hpack.HeaderField{}, p.dec.fields...)); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	clear(p.dec.fields) // the fields may be changed
	return block
}

// timeoutsLast is the order in which a list is sent.
func timeoutsLast(list []hpack.HeaderField) []hpack.HeaderField {
	var first, last []hpack.HeaderField
	for _, f := range list {
		if isTimeout(f) {
			f.Sensitive = true
			last = append(last, f)
		} else {
			first = append(first, f)
		}
	}
	return append(first, last...)
}

func fieldsOf(kv ...string) (list []hpack.HeaderField) {
	for i := 0; i < len(kv); i += 2 {
		list = append(list, hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	return list
}

func TestListsThatComeAgainAreKept(t *testing.T) {
	p := newBlockPair()
	range1 := fieldsOf(":method", "POST", ":path", "/etcdserverpb.KV/Range", "user-agent", "a")
	put := fieldsOf(":method", "POST", ":path", "/etcdserverpb.KV/Put", "user-agent", "a")
	for range 4 {
		p.pass(t, range1)
		p.pass(t, put)
	}
	if n := p.ours.sent.n; n != 2 {
		t.Errorf("%d lists were encoded after the table had them, want 2", n)
	}
	if n := p.dec.seen.n; n != 2 {
		t.Errorf("%d blocks were decoded after the table had them, want 2", n)
	}
	p.pass(t, fieldsOf("another", "field"))
	if p.ours.sent.n != 0 || p.dec.seen.n != 0 {
		t.Error("lists outlived a change of the table")
	}
	p.pass(t, range1)
}

func TestTimeoutsLeaveTheTableAsItIs(t *testing.T) {
	p := newBlockPair()
	var blocks [][]byte
	for _, timeout := range []string{"1S", "999999u", "2S", "3S"} {
		blocks = append(blocks, p.pass(t, fieldsOf(":method", "POST", ":path", "/etcdserverpb.KV/Range", "grpc-timeout", timeout, "user-agent", "a")))
	}
	if n := p.ours.sent.n; n != 1 {
		t.Errorf("%d lists are kept, want the one without the timeout", n)
	}
	for _, block := range blocks[1:] {
		if !steady(block[:3]) || !bytes.Equal(block[:3], blocks[1][:3]) {
			t.Errorf("the block begins with %x, want what was sent before: %x", block[:3], blocks[1][:3])
		}
	}
}

func TestTableSizeEndsWhatIsKept(t *testing.T) {
	p := newBlockPair()
	list := fieldsOf("user-agent", "a")
	for _, size := range []uint32{0, 4096, 100, 1 << 20, 40} {
		p.pass(t, list)
		p.pass(t, list)
		p.ours.limitTable(size)
		p.enc.SetMaxDynamicTableSize(min(size, tableSize))
	}
	p.pass(t, list)
}

// FuzzHeaderLists passes lists, some of them again, between tables that change.
func FuzzHeaderLists(f *testing.F) {
	f.Add([]byte{1, 2, 1, 2, 1, 2})
	f.Add([]byte{0x11, 0x22, 0x11, 0xf0, 0x11, 0x11, 0xf9, 0x11, 0x11})
	f.Add([]byte{0x41, 0x42, 0x43, 0x41, 0x81, 0x82, 0x81, 0xff, 0x81, 0x81})
	f.Add(slices.Repeat([]byte{3, 0x13, 0x23, 0x33, 0x43, 0x53}, 40))
	f.Fuzz(func(t *testing.T, steps []byte) {
		p := newBlockPair()
		for at, step := range steps {
			if step >= 0xf0 {
				size := uint32(step&15) * 300
				p.ours.limitTable(size)
				p.enc.SetMaxDynamicTableSize(min(size, tableSize))
				continue
			}
			list := fieldsOf(":method", "POST", "path", string('a'+rune(step&7)))
			if step&8 != 0 {
				list = append(list, fieldsOf("grpc-timeout", string('a'+rune(at%26)))...)
			}
			for i := range step >> 4 {
				list = append(list, hpack.HeaderField{Name: "name", Value: string('a' + rune(i)), Sensitive: i == 9 && step&1 != 0})
			}
			if step&0x88 == 0x88 {
				list = append(list, fieldsOf("changes", string(rune('a'+at%700)))...)
			}
			p.pass(t, list)
		}
	})
}

// BenchmarkHeaderLists decodes and encodes a request's list as grpc-go sends it: the
// same each time, with a timeout, and (plain) by HPACK alone.
func BenchmarkHeaderLists(b *testing.B) {
	list := fieldsOf(":method", "POST", ":scheme", "http", ":path", "/etcdserverpb.KV/Range", ":authority", "127.0.0.1:2379",
		"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers", "grpc-accept-encoding", "gzip", "client-api-version", "3.7")
	for name, with := range map[string][]hpack.HeaderField{"same": list, "timeout": append(slices.Clone(list), fieldsOf("grpc-timeout", "4999999u")...)} {
		b.Run("encode/"+name, func(b *testing.B) {
			e := newEncoder()
			for b.Loop() {
				e.encode(with)
			}
		})
	}
	b.Run("encode/plain", func(b *testing.B) {
		var buf bytes.Buffer
		e := hpack.NewEncoder(&buf)
		for b.Loop() {
			buf.Reset()
			for i := range list {
				_ = e.WriteField(list[i])
			}
		}
	})
	e, d := newEncoder(), newDecoder()
	if err := d.decode(e.encode(list)); err != nil {
		b.Fatal(err)
	}
	block := bytes.Clone(e.encode(list))
	b.Run("decode/same", func(b *testing.B) {
		for b.Loop() {
			_ = d.decode(block)
		}
	})
	b.Run("decode/plain", func(b *testing.B) {
		for b.Loop() {
			d.seen.forget()
			_ = d.decode(block)
		}
	})
}
