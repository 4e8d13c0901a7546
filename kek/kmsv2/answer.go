package kmsv2

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/etcdseal/etcdseal/kek"
)

// Limits of what a plugin may answer, in bytes: kube-apiserver's, in
// k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go.
const (
	maxKeyID       = 1 << 10
	maxCiphertext  = 1 << 10
	maxAnnotations = 32 << 10 // names and values together
)

// The versions of the API, which are equivalent.
const (
	apiVersion     = "v2"
	apiVersionBeta = "v2beta1"
)

// healthy is the only good value of a status's healthz.
const healthy = "ok"

// checkStatus reports what is wrong with a plugin.
func checkStatus(s *kmsapi.StatusResponse) error {
	switch {
	case s.GetVersion() != apiVersion && s.GetVersion() != apiVersionBeta:
		return fmt.Errorf("it speaks version %s of the KMS API, want %s: configure the plugin for KMS v2", quote(s.GetVersion()), apiVersion)
	case s.GetHealthz() != healthy:
		return fmt.Errorf("it says that it is not well: %s", quote(s.GetHealthz()))
	}
	return checkKeyID(s.GetKeyId())
}

// checkAnswer reports an answer to Encrypt that kube-apiserver would not take.
func checkAnswer(a *kmsapi.EncryptResponse) error {
	return check(a.GetKeyId(), a.GetCiphertext(), a.GetAnnotations())
}

// checkWrapping reports a wrapping that no answer can have given.
func checkWrapping(w kek.Wrapping) error {
	if w.Algorithm != Algorithm {
		return fmt.Errorf("the wrapping's algorithm is %.64q, want %q", w.Algorithm, Algorithm)
	}
	if !utf8.ValidString(w.Version) {
		return errors.New("the key id is not UTF-8")
	}
	return check(w.Version, w.Ciphertext, w.Annotations)
}

func check(keyID string, ciphertext []byte, annotations map[string][]byte) error {
	if err := checkKeyID(keyID); err != nil {
		return err
	}
	if len(ciphertext) == 0 {
		return errors.New("there is no ciphertext")
	}
	if len(ciphertext) > maxCiphertext {
		return fmt.Errorf("the ciphertext has %d bytes, %d are allowed", len(ciphertext), maxCiphertext)
	}
	return checkAnnotations(annotations)
}

func checkKeyID(id string) error {
	if id == "" {
		return errors.New("there is no key id")
	}
	if len(id) > maxKeyID {
		return fmt.Errorf("the key id has %d bytes, %d are allowed", len(id), maxKeyID)
	}
	return nil
}

func checkAnnotations(annotations map[string][]byte) error {
	total := 0
	for name, value := range annotations {
		if !isDomain(name) {
			return errors.New("the name of an annotation is not a fully qualified domain name")
		}
		total += len(name) + len(value)
	}
	if total > maxAnnotations {
		return fmt.Errorf("the annotations have %d bytes, %d are allowed", total, maxAnnotations)
	}
	return nil
}

// label is one part of a domain name, as RFC 1123 has it.
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// Sizes of domain names, in bytes.
const (
	maxDomain = 253
	maxLabel  = 63
)

// isDomain is IsFullyQualifiedDomainName of k8s.io/apimachinery/pkg/util/validation:
// at least two labels, a dot at the end allowed.
func isDomain(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxDomain {
		return false
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if len(l) > maxLabel || !label.MatchString(l) {
			return false
		}
	}
	return len(labels) >= 2
}

// annotationsOf returns an answer's annotations as a wrapping has them: nil if there
// are none, and no nil values.
func annotationsOf(a *kmsapi.EncryptResponse) map[string][]byte {
	if len(a.GetAnnotations()) == 0 {
		return nil
	}
	annotations := make(map[string][]byte, len(a.GetAnnotations()))
	for name, value := range a.GetAnnotations() {
		if value == nil {
			value = []byte{}
		}
		annotations[name] = value
	}
	return annotations
}
