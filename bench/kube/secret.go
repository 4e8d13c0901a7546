package kube

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
)

const (
	// valueSize is the size of each secret's value in bytes.
	valueSize = 1 << 10
	// perNamespace is the number of secrets of a namespace, which is a page of the lists that are measured.
	perNamespace = 500
	// maxInFlight is the largest number of calls that are under way at once.
	maxInFlight = 64
	// fillInFlight is how many secrets are created at once when they are not measured.
	fillInFlight = 16
)

// secret is the place of one secret.
type secret struct{ namespace, name string }

// probe is a secret of each side that is written each time the side goes on, to see whether it can be.
var probe = secret{namespace: "bench-probe", name: "probe"}

// created is the n-th secret that is created to be deleted again.
func created(n int) secret {
	return secret{namespace: "bench-created", name: fmt.Sprintf("s-%06d", n)}
}

// numbered is the n-th of the secrets that stay.
func numbered(n int) secret {
	return secret{namespace: fmt.Sprintf("bench-%03d", n/perNamespace), name: fmt.Sprintf("s-%06d", n)}
}

// key is where etcd holds it.
func (s secret) key() string { return secretsPrefix + s.namespace + "/" + s.name }

func (s secret) path() string { return secretsPath(s.namespace) + "/" + s.name }

// pool is what values are cut from: random bytes, which nothing can make shorter.
var pool = func() []byte {
	b := make([]byte, 64<<10)
	rand.Read(b)
	return b
}()

// value is the value with a number; it differs from those of the next thousands of numbers.
func value(n int) []byte {
	from := n * 31 % (len(pool) - valueSize)
	return pool[from : from+valueSize]
}

func createOf(s secret, n int) call {
	return call{method: http.MethodPost, path: secretsPath(s.namespace), body: encodeSecret(s.namespace, s.name, value(n)), minAnswer: valueSize}
}

func updateOf(s secret, n int) call {
	return call{method: http.MethodPut, path: s.path(), body: encodeSecret(s.namespace, s.name, value(n)), minAnswer: valueSize}
}

// getOf has no resource version, so that kube-apiserver reads it from etcd.
func getOf(s secret) call {
	return call{method: http.MethodGet, path: s.path(), minAnswer: valueSize}
}

func deleteOf(s secret) call { return call{method: http.MethodDelete, path: s.path()} }

// prepare makes the namespaces of the secrets that come and go, and the probe.
func (s *side) prepare(ctx context.Context) error {
	for _, namespace := range []string{probe.namespace, created(0).namespace} {
		if err := s.createNamespace(ctx, namespace); err != nil {
			return err
		}
	}
	return s.client.do(ctx, createOf(probe, 0))
}

// fill creates numbered secrets until there are so many.
func (s *side) fill(ctx context.Context, total int) error {
	from := s.secrets
	for n := (from + perNamespace - 1) / perNamespace * perNamespace; n < total; n += perNamespace {
		if err := s.createNamespace(ctx, numbered(n).namespace); err != nil {
			return err
		}
	}
	if from >= total {
		return nil
	}
	_, err := saturate(ctx, func(ctx context.Context, n int) error {
		return s.client.do(ctx, createOf(numbered(from+n), from+n))
	}, fillInFlight, 0, total-from)
	if err != nil {
		return fmt.Errorf("creating secrets: %w", err)
	}
	s.secrets = total
	return nil
}

func (s *side) createNamespace(ctx context.Context, name string) error {
	err := s.client.do(ctx, call{method: http.MethodPost, path: namespacesPath, body: encodeNamespace(name)})
	if err != nil {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	return nil
}

// isSecret says whether an etcd key is that of a secret of this benchmark.
func isSecret(key string) bool { return strings.HasPrefix(key, secretsPrefix+"bench-") }
