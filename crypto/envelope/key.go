package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Key is one DEK, ready to seal and to open. It is safe for concurrent use and
// does not change after NewKey.
//
// It holds the AES key schedule and not the DEK. The schedule lives as long as
// the Key does and cannot be wiped, nor can what HKDF leaves in memory on the
// way: the standard library gives no access to either.
//
// A Key does not count its seals. Nonces are random, so NIST SP 800-38D, section
// 8.3, allows 2^32 seals under one DEK; whoever chooses the DEK keeps the count.
type Key struct {
	header [headerSize]byte
	id     ID
	aead   cipher.AEAD // takes no nonce: makes a random one and puts it first
	// opener takes the nonce and so opens a ciphertext where it stands, which
	// aead cannot without moving it. It is nil under GODEBUG=fips140=only, which
	// allows no GCM whose nonce the caller gives.
	opener cipher.AEAD
}

// NewKey makes a Key from the KeySize bytes of a DEK, of which it keeps nothing:
// the caller may wipe dek. The identifier is taken as it is; whoever reads the
// DEK from a record compares it with DeriveID's first.
func NewKey(id ID, dek []byte) (*Key, error) {
	if len(dek) != KeySize {
		return nil, fmt.Errorf("making key of DEK %s: the DEK has %d bytes, want %d", id, len(dek), KeySize)
	}
	aesKey := deriveAES(dek)
	defer clear(aesKey)
	block, err := aes.NewCipher(aesKey)
	if err != nil {
		return nil, fmt.Errorf("making key of DEK %s: %w", id, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making key of DEK %s: %w", id, err)
	}
	k := &Key{header: header(id), id: id, aead: aead}
	if opener, err := cipher.NewGCM(block); err == nil {
		k.opener = opener
	}
	return k, nil
}

// ID returns the identifier of the DEK.
func (k *Key) ID() ID { return k.id }

// Format prints the DEK's identifier for every verb, so that no key schedule can
// get into a log.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "DEK "+k.id.String()) }

// Seal appends the envelope of a plaintext for one etcd key to dst and returns
// the extended slice, longer by len(plaintext)+Overhead. An empty plaintext is
// sealed like any other. Seal does not allocate when dst has the capacity.
//
// Neither plaintext nor dst may overlap the other's memory, spare capacity of dst
// included; etcdKey may lie anywhere.
func (k *Key) Seal(dst, etcdKey, plaintext []byte) []byte {
	aad := getScratch()
	aad.buf = appendAAD(aad.buf[:0], &k.header, etcdKey)
	dst = slices.Grow(dst, len(plaintext)+Overhead)
	dst = append(dst, k.header[:]...)
	dst = k.aead.Seal(dst, nil, plaintext, aad.buf)
	putScratch(aad)
	return dst
}

// Open opens the envelope of one etcd key in place: the plaintext that it returns
// is a part of env, and the rest of env has no meaning any more. Nothing past
// len(env) is written, and appending to the plaintext reallocates. Open does not
// allocate.
//
// The errors are those of Parse, a *WrongKeyError when another DEK sealed the
// envelope, and ErrAuthentication. With the first two env is as it was. After
// ErrAuthentication the envelope is lost: the standard library has zeroed the
// place of the plaintext. Whoever wants to return the envelope untouched keeps a
// copy.
func (k *Key) Open(env, etcdKey []byte) ([]byte, error) {
	if err := k.check(env); err != nil {
		return nil, err
	}
	// cipher.AEAD reserves the right to overwrite dst up to its capacity.
	env = env[:len(env):len(env)]
	at := headerSize + nonceSize
	if k.opener == nil {
		at = headerSize // where its own kind of ciphertext begins
	}
	plaintext, err := k.open(env[at:at], env, etcdKey)
	return plaintext[:len(plaintext):len(plaintext)], err
}

// OpenTo appends the plaintext to dst, which must not overlap the envelope, and
// leaves the envelope as it is. It allocates only if dst lacks the capacity. The
// errors are those of Open; dst is returned as it was then, but what lies past its
// length may have changed.
func (k *Key) OpenTo(dst, env, etcdKey []byte) ([]byte, error) {
	if err := k.check(env); err != nil {
		return dst, err
	}
	opened, err := k.open(dst, env, etcdKey)
	if err != nil {
		return dst, err
	}
	return opened, nil
}

// check reports whether an envelope is one that this key can open.
func (k *Key) check(env []byte) error {
	id, err := Parse(env)
	if err == nil && id != k.id {
		err = &WrongKeyError{Envelope: id, Key: k.id}
	}
	return err
}

// open appends the plaintext of an envelope that was checked to dst.
func (k *Key) open(dst, env, etcdKey []byte) ([]byte, error) {
	aad := getScratch()
	defer putScratch(aad)
	aad.buf = appendAAD(aad.buf[:0], (*[headerSize]byte)(env), etcdKey)
	var err error
	if k.opener != nil {
		const body = headerSize + nonceSize
		dst, err = k.opener.Open(dst, env[headerSize:body], env[body:], aad.buf)
	} else {
		dst, err = k.aead.Open(dst, nil, env[headerSize:], aad.buf)
	}
	if err != nil {
		return nil, ErrAuthentication
	}
	return dst, nil
}

// scratch is room for the additional data of one Seal or Open. It has to be on
// the heap, for cipher.AEAD is an interface, and is pooled for that reason. It
// never holds a secret.
type scratch struct{ buf []byte }

// maxScratch bounds what the pool keeps, in bytes. etcd allows keys of more than
// a megabyte; those of Kubernetes are below 1 KiB.
const maxScratch = 4 << 10

var scratches = sync.Pool{New: func() any { return &scratch{buf: make([]byte, 0, 256)} }}

func getScratch() *scratch { return scratches.Get().(*scratch) }

func putScratch(s *scratch) {
	if cap(s.buf) <= maxScratch {
		scratches.Put(s)
	}
}
