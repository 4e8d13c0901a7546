package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

func TestSealOpen(t *testing.T) {
	key, etcdKey := testKey(t, 1), []byte("/registry/secrets/a/b")
	for _, size := range []int{0, 1, 11, 12, 16, 28, 31, 48, 1024, 16<<20 + 3} {
		plaintext := pattern(size)
		prefix := []byte("already there")
		out := key.Seal(bytes.Clone(prefix), etcdKey, plaintext)
		if !bytes.HasPrefix(out, prefix) || len(out) != len(prefix)+size+envelope.Overhead {
			t.Fatalf("size %d: Seal appended %d bytes, want %d", size, len(out)-len(prefix), size+envelope.Overhead)
		}
		env := out[len(prefix):]
		if !envelope.Is(env) || (size >= 16 && bytes.Contains(env, plaintext[:16])) {
			t.Fatalf("size %d: not an envelope, or it holds the plaintext", size)
		}
		for _, dst := range [][]byte{nil, bytes.Clone(prefix), append(make([]byte, 0, size+100), prefix...)} {
			before := bytes.Clone(env)
			got, err := key.OpenTo(dst, env, etcdKey)
			if err != nil || !bytes.Equal(got, append(dst, plaintext...)) || !bytes.Equal(env, before) {
				t.Fatalf("size %d: OpenTo: %v, or another plaintext, or a changed envelope", size, err)
			}
		}
		got, err := key.Open(env, etcdKey)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("size %d: Open: %v, plaintext equal: %v", size, err, bytes.Equal(got, plaintext))
		}
		if got == nil || size > 0 && &got[0] != &env[20] && &got[0] != &env[32] {
			t.Errorf("size %d: the plaintext is not where the envelope was", size)
		}
	}
}

// The nonce is new for every seal, so equal plaintexts do not look equal.
func TestSealIsRandomised(t *testing.T) {
	key, seen := testKey(t, 1), map[string]bool{}
	for range 1000 {
		env := key.Seal(nil, []byte("k"), []byte("v"))
		nonce := string(env[20:32])
		if seen[nonce] {
			t.Fatal("a nonce came twice")
		}
		seen[nonce] = true
	}
}

// A client may store what looks like an envelope; it is sealed and comes back.
func TestSealEnvelope(t *testing.T) {
	key, etcdKey := testKey(t, 1), []byte("k")
	inner := key.Seal(nil, etcdKey, []byte("v"))
	got, err := key.Open(key.Seal(nil, etcdKey, inner), etcdKey)
	if err != nil || !bytes.Equal(got, inner) {
		t.Errorf("Open = %x, %v, want the inner envelope %x", got, err, inner)
	}
}

func TestOpenEveryBitFlip(t *testing.T) {
	key, etcdKey := testKey(t, 1), []byte("/registry/secrets/a/b")
	env := key.Seal(nil, etcdKey, pattern(33))
	for bit := range len(env) * 8 {
		bad := bytes.Clone(env)
		bad[bit/8] ^= 1 << (bit % 8)
		got, err := key.Open(bad, etcdKey)
		want := "not authentic"
		switch at := bit / 8; {
		case at < 3:
			want = "not an envelope"
		case at == 3:
			want = fmt.Sprintf("version %d", bad[3])
		case at < 20:
			want = "another DEK"
		}
		if kindOf(err) != want || got != nil {
			t.Errorf("bit %d flipped: Open = %x, %v, want %s", bit, got, err, want)
		}
	}
	for bit := range len(etcdKey) * 8 {
		bad := bytes.Clone(etcdKey)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := key.Open(bytes.Clone(env), bad); !errors.Is(err, envelope.ErrAuthentication) {
			t.Errorf("bit %d of the etcd key flipped: %v, want %v", bit, err, envelope.ErrAuthentication)
		}
	}
}

func TestOpenTruncated(t *testing.T) {
	key, etcdKey := testKey(t, 1), []byte("k")
	env := key.Seal(nil, etcdKey, pattern(70))
	for n := range env {
		want := "not authentic"
		switch {
		case n < 3:
			want = "not an envelope"
		case n < envelope.Overhead:
			want = "truncated"
		}
		if got, err := key.Open(bytes.Clone(env[:n]), etcdKey); kindOf(err) != want || got != nil {
			t.Errorf("the first %d bytes: Open = %x, %v, want %s", n, got, err, want)
		}
	}
}

// Bytes cannot move between the header and the etcd key, nor between keys.
func TestOpenAnotherEtcdKey(t *testing.T) {
	key := testKey(t, 1)
	env := key.Seal(nil, []byte("/registry/secrets/a/b"), []byte("v"))
	for _, other := range []string{"", "/registry/secrets/a/", "/registry/secrets/a/bc", "/registry/secrets/a/B", "\x00/registry/secrets/a/b"} {
		if got, err := key.Open(bytes.Clone(env), []byte(other)); !errors.Is(err, envelope.ErrAuthentication) || got != nil {
			t.Errorf("under %q: Open = %x, %v, want %v", other, got, err, envelope.ErrAuthentication)
		}
	}
}

// An envelope whose header names this DEK and whose rest is another's.
func TestOpenForgedID(t *testing.T) {
	a, b := testKey(t, 1), testKey(t, 2)
	env := a.Seal(nil, []byte("k"), []byte("v"))
	id := b.ID()
	copy(env[4:], id[:])
	if got, err := b.Open(env, []byte("k")); !errors.Is(err, envelope.ErrAuthentication) || got != nil {
		t.Errorf("Open = %x, %v, want %v", got, err, envelope.ErrAuthentication)
	}
}

// Open neither reads nor writes beyond the envelope, whose buffer holds the rest
// of a message.
func TestOpenStaysInItsBytes(t *testing.T) {
	key, etcdKey := testKey(t, 1), []byte("k")
	env := key.Seal(nil, etcdKey, pattern(50))
	message := append(append([]byte("before"), env...), "after"...)
	part := message[6 : 6+len(env)]
	got, err := key.Open(part, etcdKey)
	if err != nil || !bytes.Equal(got, pattern(50)) {
		t.Fatalf("Open = %x, %v", got, err)
	}
	_ = append(got, "overwritten?"...)
	if !bytes.HasPrefix(message, []byte("before")) || !bytes.HasSuffix(message, []byte("after")) {
		t.Errorf("the bytes around the envelope changed: %q", message)
	}
	if tail := message[6+20+50 : 6+len(env)]; bytes.Contains(tail, []byte("overwritten?")) {
		t.Error("appending to the plaintext wrote into the message")
	}
}

// What the documentation of Open says of the bytes after a failure.
func TestOpenFailureZeroes(t *testing.T) {
	key := testKey(t, 1)
	env := key.Seal(nil, []byte("k"), pattern(50))
	if _, err := key.Open(env, []byte("other")); !errors.Is(err, envelope.ErrAuthentication) {
		t.Fatal(err)
	}
	// Under GODEBUG=fips140=only the plaintext comes 12 bytes earlier.
	if zeros := make([]byte, 50); !bytes.Equal(env[32:82], zeros) && !bytes.Equal(env[20:70], zeros) {
		t.Error("the place of the plaintext is not zero after a failed Open")
	}
}

// The etcd key may lie in the same buffer as the envelope, as in a message.
func TestOpenKeyInSameBuffer(t *testing.T) {
	key := testKey(t, 1)
	message := key.Seal([]byte("etcd key"), []byte("etcd key"), []byte("v"))
	if got, err := key.Open(message[8:], message[:8]); err != nil || string(got) != "v" {
		t.Errorf("Open = %q, %v", got, err)
	}
	env := key.Seal(nil, []byte("\x00es\x01"), []byte("v"))
	if got, err := key.Open(env, env[:4]); err != nil || string(got) != "v" {
		t.Errorf("with the key inside the envelope: Open = %q, %v", got, err)
	}
}

// NewKey keeps nothing of the DEK it was given.
func TestNewKeyCopies(t *testing.T) {
	dek := testDEK(3)
	key := newKey(t, envelope.DeriveID(dek, nil, "test"), dek)
	env := key.Seal(nil, []byte("k"), []byte("v"))
	clear(dek)
	if got, err := key.Open(env, []byte("k")); err != nil || string(got) != "v" {
		t.Errorf("after wiping the DEK: Open = %q, %v", got, err)
	}
}

func TestKeyPrintsIDOnly(t *testing.T) {
	key := testKey(t, 1)
	want := "DEK " + key.ID().String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, key); got != want {
			t.Errorf("%s prints %q, want %q", verb, got, want)
		}
	}
}

// One key, several goroutines: for the race detector, and for scratch that one
// took from another.
func TestKeyConcurrently(t *testing.T) {
	key := testKey(t, 1)
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			var buf []byte
			for i := range 500 {
				etcdKey := fmt.Appendf(nil, "/registry/secrets/%d/%d", g, i)
				plaintext := pattern(g*100 + i)
				buf = key.Seal(buf[:0], etcdKey, plaintext)
				if got, err := key.Open(buf, etcdKey); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("goroutine %d, value %d: %v, plaintext equal: %v", g, i, err, bytes.Equal(got, plaintext))
					return
				}
			}
		})
	}
	group.Wait()
}
