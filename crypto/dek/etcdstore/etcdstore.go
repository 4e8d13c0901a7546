// Package etcdstore keeps the keyring's records in etcd, beside the values that are
// sealed with them, so that every snapshot of etcd has both.
//
// Under the prefix, by default /etcdseal/, lie
//
//	<prefix>dek/<id>         the record of a DEK
//	<prefix>tombstone/<id>   in its place, when it was removed for good
//
// with ids of 32 lower-case hexadecimal digits. No key has a lease. All reads are
// linearizable, all writes are transactions that compare first; no other key of etcd is
// ever touched. The proxy's clients may read the prefix and not write it.
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// DefaultPrefix is where records are if Config names no prefix.
const DefaultPrefix = "/etcdseal/"

// Times of the connection. etcd closes connections that are pinged more often than
// every 5 s, and exactly 5 s is too often.
const (
	keepAliveMin     = 10 * time.Second
	keepAliveDefault = 30 * time.Second
	keepAliveTimeout = 10 * time.Second
	connectTimeout   = 5 * time.Second
	listTimeout      = 10 * time.Second
)

// Config says which etcd. The zero value of every field but Endpoints is usable.
type Config struct {
	// Endpoints are URLs of members of one cluster, as clientv3 takes them.
	Endpoints []string
	// Credentials secure the connections, whatever the endpoints' schemes; nil is
	// TLS with the system's CAs for https and unixs endpoints, and no TLS for others.
	Credentials credentials.TransportCredentials
	// Tokens gives the tokens of the etcd user as whom calls are made; nil is
	// none.
	Tokens Tokens
	// Prefix is the reserved prefix. It ends with a slash; "" is
	// DefaultPrefix.
	Prefix string
	// KeepAlive is how often a silent connection is pinged while a watch is
	// open, at least 10 s; 0 is 30 s.
	KeepAlive time.Duration
}

// Store is a keyring in etcd. It is safe for concurrent use.
type Store struct {
	prefix string
	client *clientv3.Client
	close  func() error

	mu   sync.Mutex // guards seen
	seen position

	fell chan struct{} // holds one: etcd was put back to an older state

	connections connections
}

var (
	_ dek.Burier      = (*Store)(nil)
	_ dek.Reconnecter = (*Store)(nil)
)

// Dial returns a Store. It does not wait for etcd, so that a proxy can start before it:
// calls wait instead. The error says what is wrong with the Config.
func Dial(c Config) (*Store, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if !strings.HasSuffix(c.Prefix, "/") {
		return nil, fmt.Errorf("dialing keyring's etcd: the prefix %q does not end with a slash", c.Prefix)
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = keepAliveDefault
	}
	if c.KeepAlive < keepAliveMin {
		return nil, fmt.Errorf("dialing keyring's etcd: a keepalive of %s is too short, etcd allows %s", c.KeepAlive, keepAliveMin)
	}
	s := &Store{prefix: c.Prefix, fell: make(chan struct{}, 1)}
	config := clientv3.Config{
		Endpoints: c.Endpoints, DialTimeout: connectTimeout, DialKeepAliveTime: c.KeepAlive, DialKeepAliveTimeout: keepAliveTimeout,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: connectTimeout,
		}), grpc.WithContextDialer(s.connections.dial)},
		Logger: zap.NewNop(), // its errors are returned; it would print every retry
	}
	if c.Credentials != nil {
		config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(c.Credentials))
	}
	if c.Tokens != nil {
		config.DialOptions = append(config.DialOptions, withTokens(c.Tokens)...)
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("dialing keyring's etcd: %w", err)
	}
	s.client, s.close = client, sync.OnceValue(client.Close)
	return s, nil
}

// RecordKey implements dek.Store.
func (s *Store) RecordKey(id envelope.ID) []byte { return []byte(s.recordKey(id)) }

func (s *Store) recordKey(id envelope.ID) string    { return s.prefix + "dek/" + id.String() }
func (s *Store) tombstoneKey(id envelope.ID) string { return s.prefix + "tombstone/" + id.String() }

// parseKey is the inverse of recordKey and tombstoneKey. ok is false for other keys.
func (s *Store) parseKey(key []byte) (id envelope.ID, tombstone, ok bool) {
	rest, ok := strings.CutPrefix(string(key), s.prefix)
	kind, name, slash := strings.Cut(rest, "/")
	if !ok || !slash || kind != "dek" && kind != "tombstone" {
		return id, false, false
	}
	id, err := envelope.ParseID(name)
	return id, kind == "tombstone", err == nil
}

// Close implements dek.Store. Calls fail from then on.
func (s *Store) Close() error {
	if err := s.close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing keyring's etcd client: %w", err)
	}
	return nil
}
