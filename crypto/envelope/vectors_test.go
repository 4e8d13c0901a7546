package envelope_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// hexBytes is bytes in a JSON file as hexadecimal digits.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// vector is one entry of testdata/vectors.json. The file was made by another
// implementation (Python, pyca/cryptography) and is frozen: a change that makes a
// vector fail makes values in somebody's etcd unreadable.
type vector struct {
	Name      string   `json:"name"`
	DEK       hexBytes `json:"dek"`
	AuthKey   hexBytes `json:"authKey"`
	Keyring   string   `json:"keyring"`
	ID        hexBytes `json:"id"`
	AESKey    hexBytes `json:"aesKey"`
	EtcdKey   hexBytes `json:"etcdKey"`
	Plaintext hexBytes `json:"plaintext"`
	Envelope  hexBytes `json:"envelope"`
	Error     string   `json:"error"`
}

type vectorFile struct {
	Open   []vector `json:"open"`
	Refuse []vector `json:"refuse"`
}

func readVectors(t testing.TB) vectorFile {
	t.Helper()
	f, err := os.Open("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var vectors vectorFile
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&vectors); err != nil {
		t.Fatalf("reading vectors: %v", err)
	}
	if len(vectors.Open) < 12 || len(vectors.Refuse) < 18 {
		t.Fatalf("%d and %d vectors, some were lost", len(vectors.Open), len(vectors.Refuse))
	}
	return vectors
}

func (v vector) key(t testing.TB) *envelope.Key {
	t.Helper()
	return newKey(t, envelope.DeriveID(v.DEK, v.AuthKey, v.Keyring), v.DEK)
}

func TestVectorsOpen(t *testing.T) {
	for _, v := range readVectors(t).Open {
		t.Run(v.Name, func(t *testing.T) {
			key := v.key(t)
			if got, want := key.ID().String(), hex.EncodeToString(v.ID); got != want {
				t.Errorf("DeriveID = %s, want %s", got, want)
			}
			if id, err := envelope.Parse(v.Envelope); err != nil || id != key.ID() {
				t.Errorf("Parse = %s, %v, want %s", id, err, key.ID())
			}
			if got, err := referenceOpen(v.DEK, v.Envelope, v.EtcdKey); err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Errorf("the reference returns %x, %v, want %x", got, err, v.Plaintext)
			}
			got, err := key.Open(bytes.Clone(v.Envelope), v.EtcdKey)
			if err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Errorf("Open = %x, %v, want %x", got, err, v.Plaintext)
			}
		})
	}
}

func TestVectorsRefuse(t *testing.T) {
	for _, v := range readVectors(t).Refuse {
		t.Run(v.Name, func(t *testing.T) {
			plaintext, err := v.key(t).Open(bytes.Clone(v.Envelope), v.EtcdKey)
			if got := kindOf(err); got != v.Error || plaintext != nil {
				t.Errorf("Open = %x, %v (%s), want %s", plaintext, err, got, v.Error)
			}
		})
	}
}

// kindOf names an error as the vectors do.
func kindOf(err error) string {
	var version *envelope.VersionError
	var wrongKey *envelope.WrongKeyError
	switch {
	case errors.Is(err, envelope.ErrNotEnvelope):
		return "not an envelope"
	case errors.Is(err, envelope.ErrTruncated):
		return "truncated"
	case errors.Is(err, envelope.ErrAuthentication):
		return "not authentic"
	case errors.As(err, &version):
		return fmt.Sprintf("version %d", version.Version)
	case errors.As(err, &wrongKey):
		return "another DEK"
	default:
		return fmt.Sprint("unexpected: ", err)
	}
}

// docs/FORMAT.md works the first vector out; what it shows must be the vector.
func TestFormatDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	v := readVectors(t).Open[0]
	for field, want := range map[string]string{
		"dek":        hex.EncodeToString(v.DEK),
		"keyring":    v.Keyring,
		"id":         hex.EncodeToString(v.ID),
		"AES key":    hex.EncodeToString(v.AESKey),
		"etcd key":   string(v.EtcdKey),
		"nonce":      hex.EncodeToString(v.Envelope[20:32]),
		"AAD":        hex.EncodeToString(v.Envelope[:20]) + hex.EncodeToString(v.EtcdKey),
		"plaintext":  hex.EncodeToString(v.Plaintext),
		"ciphertext": hex.EncodeToString(v.Envelope[32 : len(v.Envelope)-16]),
		"tag":        hex.EncodeToString(v.Envelope[len(v.Envelope)-16:]),
		"envelope":   hex.EncodeToString(v.Envelope),
		"id info":    "`etcdseal dek id v1`",
		"AES info":   "`etcdseal aes-256-gcm v1`",
	} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/FORMAT.md does not hold the worked example's %s: %s", field, want)
		}
	}
}
