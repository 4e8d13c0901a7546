package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/kms/pkg/service"
)

// aesKeySize is the size of an AES-256 key in bytes.
const aesKeySize = 32

// key wraps what kube-apiserver derives its data keys from, which is 32 bytes long.
type key interface {
	wrap(plaintext []byte) ([]byte, error)
	unwrap(ciphertext []byte) ([]byte, error)
}

// plugin answers with one key. It is safe for concurrent use.
type plugin struct {
	id  string
	key key
}

var _ service.Service = (*plugin)(nil)

// readPlugin reads the key file. The key's id is a hash of it, of 64 digits, as long as the id that Azure's plugin makes of a key's URL.
func readPlugin(path string) (*plugin, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	id := sha256.Sum256(append([]byte("kmsplugin key id\x00"), data...))
	p := &plugin{id: hex.EncodeToString(id[:])}
	if block, _ := pem.Decode(data); block != nil {
		p.key, err = parseRSA(block.Bytes)
	} else {
		p.key, err = parseAES(strings.TrimSpace(string(data)))
	}
	if err != nil {
		return nil, fmt.Errorf("reading key file %s: %w", path, err)
	}
	return p, nil
}

// Status implements service.Service.
func (p *plugin) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: p.id}, nil
}

// Encrypt implements service.Service.
func (p *plugin) Encrypt(_ context.Context, _ string, plaintext []byte) (*service.EncryptResponse, error) {
	wrapped, err := p.key.wrap(plaintext)
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return &service.EncryptResponse{Ciphertext: wrapped, KeyID: p.id}, nil
}

// Decrypt implements service.Service.
func (p *plugin) Decrypt(_ context.Context, _ string, request *service.DecryptRequest) ([]byte, error) {
	if request.KeyID != p.id {
		return nil, errors.New("decrypting: the key id is not this plugin's")
	}
	plaintext, err := p.key.unwrap(request.Ciphertext)
	if err != nil {
		return nil, fmt.Errorf("decrypting: %w", err)
	}
	return plaintext, nil
}

// aesKey is AES-256-GCM with a random nonce before the ciphertext.
type aesKey struct{ aead cipher.AEAD }

func parseAES(digits string) (aesKey, error) {
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != aesKeySize {
		return aesKey{}, fmt.Errorf("it holds neither %d hexadecimal digits nor a key in PEM", 2*aesKeySize) // err could show what is in it
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return aesKey{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return aesKey{aead}, err
}

func (k aesKey) wrap(plaintext []byte) ([]byte, error) {
	return k.aead.Seal(nil, nil, plaintext, nil), nil
}

func (k aesKey) unwrap(ciphertext []byte) ([]byte, error) {
	return k.aead.Open(nil, nil, ciphertext, nil)
}

// rsaKey is RSA-OAEP with SHA-256, which Key Vault calls RSA-OAEP-256.
type rsaKey struct{ private *rsa.PrivateKey }

func parseRSA(der []byte) (rsaKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return rsaKey{}, errors.New("it is not a private key in PKCS #8")
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return rsaKey{}, fmt.Errorf("it holds a %T, want an RSA key", parsed)
	}
	return rsaKey{private}, nil
}

func (k rsaKey) wrap(plaintext []byte) ([]byte, error) {
	return rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.private.PublicKey, plaintext, nil)
}

func (k rsaKey) unwrap(ciphertext []byte) ([]byte, error) {
	return rsa.DecryptOAEP(sha256.New(), nil, k.private, ciphertext, nil)
}
