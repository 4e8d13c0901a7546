// Package dek makes, keeps and finds the data keys (DEK) that values are sealed
// with. A Manager seals with DEKs of its own making only, and opens with every DEK of
// its keyring: the records, one a DEK, that a Store holds with the DEKs wrapped by
// key-encryption keys (KEK).
//
// It guarantees that
//
//   - a DEK is sealed with only while its record is, as far as this process knows, in
//     the store, and never before the record was durable there and what it holds was
//     unwrapped and compared;
//   - a DEK is sealed with at most MaxSeals times, and never at or after its record's
//     sealUntil;
//   - what is opened with a DEK id is opened with the DEK that the id commits to, of
//     this keyring: a swapped wrapping or another keyring's record is refused;
//   - a record that this process saw is put back when the store loses it, unless a
//     tombstone says that it was removed for good;
//   - a record that this process knows is not given up for another one in the store
//     before that was unwrapped and gave the same DEK; if it does not and the known one
//     does, the known wrappings are put beside it;
//   - a DEK is unwrapped once, however many wait for it;
//   - while Run runs, a DEK all of whose KEKs say no stops sealing within CheckInterval and
//     opening within DeniedGrace; while none of them can be heard it is used on, up to
//     OfflineLimit.
//
// DEK bytes live from a wrap or unwrap until the AES key schedule is made, and are
// wiped then. A schedule lives as long as its DEK is cached and cannot be wiped.
package dek

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
)

// MaxSeals is how often one DEK may seal: 2^30. Nonces are random, for which NIST SP
// 800-38D, section 8.3, allows 2^32.
const MaxSeals = 1 << 30

// Defaults of Config.
const (
	DefaultLifetime     = 90 * 24 * time.Hour
	DefaultInterval     = time.Minute
	DefaultCacheSize    = 1024
	DefaultKEKTimeout   = 35 * time.Second
	DefaultStoreTimeout = 5 * time.Second
	DefaultRefusalTime  = 5 * time.Second
	DefaultRotateLag    = 15 * time.Minute
	DefaultRotateDelay  = 10 * time.Second

	DefaultCheckInterval = time.Minute
	DefaultDeniedGrace   = 10 * time.Minute
)

// Config is what a Manager works with. The zero value of every field but Store,
// Keyring and KEKs is usable.
type Config struct {
	// Store holds the keyring. The Manager does not close it.
	Store Store
	// Keyring is the keyring's name. DEKs are bound to it for good.
	Keyring string
	// AuthKey, if there is one, is a secret without which nobody can make a
	// DEK that this keyring accepts. DEKs are bound to it for good.
	AuthKey []byte
	// KEKs are the key-encryption keys by their names in the configuration.
	// The Manager does not close them.
	KEKs map[string]kek.KEK

	// Lifetime is how long a new DEK is sealed with, at least a minute; 0 is
	// DefaultLifetime.
	Lifetime time.Duration
	// MaxSeals is how often a DEK is sealed with, at most the constant
	// MaxSeals; 0 is that.
	MaxSeals int64
	// Interval is how often Run reads the whole keyring again and asks the
	// KEKs for their versions; 0 is DefaultInterval.
	Interval time.Duration
	// CacheSize is how many opened DEKs are kept, 0 is DefaultCacheSize. It
	// grows with the number of records.
	CacheSize int
	// KEKTimeout bounds each call to a KEK; 0 is DefaultKEKTimeout.
	KEKTimeout time.Duration
	// StoreTimeout bounds each call to the store; 0 is DefaultStoreTimeout.
	StoreTimeout time.Duration
	// RefusalTime is how long a DEK that cannot be opened is refused without
	// asking anybody; 0 is DefaultRefusalTime. A KEK that does not answer is
	// asked again after a second, or RefusalTime if that is shorter.
	RefusalTime time.Duration
	// RotateLag is how long what a KEK says of its version may be out of date, with
	// all clocks' differences: several times the longest interval at which any
	// process asks. A process that did not see a version change waits for so long
	// until it replaces wrappings by another one. 0 is DefaultRotateLag.
	RotateLag time.Duration
	// RotateDelay is how long Run waits at most, by chance, before it rewraps records,
	// so that not all processes begin at once. 0 is DefaultRotateDelay.
	RotateDelay time.Duration

	// CheckInterval is how often Run has each KEK in use wrap and unwrap, to find
	// out whether it still does; 0 is DefaultCheckInterval. A DEK all of whose KEKs
	// deny to wrap stops sealing at a check, and seals again at another.
	CheckInterval time.Duration
	// DeniedGrace is how long opened DEKs are used on after all of their KEKs began
	// to deny to unwrap them; 0 is DefaultDeniedGrace.
	DeniedGrace time.Duration
	// OfflineLimit is how long DEKs are used on while no KEK of theirs answers; 0 is
	// without end.
	OfflineLimit time.Duration

	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Logger gets changes of state at Info, what an operator should look at
	// at Warn, and never a secret; nil is none.
	Logger *slog.Logger
	// Observer hears of what is done; nil is none.
	Observer Observer
	// Auditor writes down what is done with DEKs, before it is done; nil is
	// none.
	Auditor Auditor
}

// Manager is a process's use of a keyring. All methods are safe for concurrent use.
//
// A Manager works without Run, which tools need: then it knows only the records that
// it looked up, puts nothing back by itself, and does not notice that one is gone.
type Manager struct {
	config Config
	log    *slog.Logger
	obs    Observer
	store  Store
	wraps  wrapper
	cache  *cache

	tasks    *tasks
	opening  *flights[envelope.ID, *envelope.Key]
	sealing  *flights[*Sealer, struct{}]
	settling *flights[envelope.ID, struct{}]

	running  atomic.Bool
	resync   chan struct{} // asks the watch for everything again; holds one
	unsettle chan struct{} // says that a record has to be put back; holds one
	unproven chan struct{} // says that a record has to be proved; holds one
	renewal  chan struct{} // says that a DEK is nearly used up; holds one
	asking   chan struct{} // says that KEKs are to be asked for their versions; holds one
	rotation chan struct{} // says that records may have to be rewrapped; holds one
	self     string        // names this process's claims

	judging sync.Mutex // held while the KEKs' health is judged; before mu

	mu       sync.Mutex // guards all below, and what entries and Sealers say it guards
	known    map[envelope.ID]*entry
	strange  map[envelope.ID]int64 // revisions of records that were logged as unusable
	refusals *refusals
	sealers  map[string]*Sealer
	sets     []Set                     // what records are to be wrapped by; see WrapBy
	since    map[string]time.Time      // since when a KEK is in sets
	views    map[string]*view          // of the KEKs
	kept     map[string]time.Time      // wrappings that are not dropped until then; see keptKey
	unopened map[envelope.ID]time.Time // records that are not rewrapped until then, since they did not give the DEK
	health   map[string]*kekHealth     // by the KEKs' names
	dropped  map[envelope.ID]bool      // what judge dropped and nobody can open yet
}

// New returns a Manager. It asks neither the store nor a KEK. The error says what is
// wrong with the Config.
func New(c Config) (*Manager, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("making keyring: %w", err)
	}
	m := &Manager{
		config: c, log: c.Logger, obs: c.Observer, store: c.Store,
		cache:    newCache(c.CacheSize),
		tasks:    newTasks(),
		resync:   make(chan struct{}, 1),
		unsettle: make(chan struct{}, 1),
		unproven: make(chan struct{}, 1),
		renewal:  make(chan struct{}, 1),
		asking:   make(chan struct{}, 1),
		rotation: make(chan struct{}, 1),
		self:     newSelf(),
		known:    make(map[envelope.ID]*entry),
		strange:  make(map[envelope.ID]int64),
		refusals: newRefusals(),
		sealers:  make(map[string]*Sealer),
		since:    make(map[string]time.Time),
		views:    make(map[string]*view),
		kept:     make(map[string]time.Time),
		unopened: make(map[envelope.ID]time.Time),
	}
	m.wraps = newWrapper(c)
	m.health, m.dropped = newHealth(m.wraps, m.clock()), make(map[envelope.ID]bool)
	m.opening = newFlights[envelope.ID, *envelope.Key](m.tasks)
	m.sealing = newFlights[*Sealer, struct{}](m.tasks)
	m.settling = newFlights[envelope.ID, struct{}](m.tasks)
	return m, nil
}

// complete checks a Config and fills in the defaults.
func (c *Config) complete() error {
	c.AuthKey = slices.Clone(c.AuthKey)
	setDefault(&c.Lifetime, DefaultLifetime)
	setDefault(&c.MaxSeals, MaxSeals)
	setDefault(&c.Interval, DefaultInterval)
	setDefault(&c.CacheSize, DefaultCacheSize)
	setDefault(&c.KEKTimeout, DefaultKEKTimeout)
	setDefault(&c.StoreTimeout, DefaultStoreTimeout)
	setDefault(&c.RefusalTime, DefaultRefusalTime)
	setDefault(&c.RotateLag, DefaultRotateLag)
	setDefault(&c.RotateDelay, DefaultRotateDelay)
	setDefault(&c.CheckInterval, DefaultCheckInterval)
	setDefault(&c.DeniedGrace, DefaultDeniedGrace)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = NopObserver{}
	}
	if c.Auditor == nil {
		c.Auditor = nopAuditor{}
	}
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("there is no store"))
	}
	if err := checkText("the keyring's name", c.Keyring, MaxNameSize); err != nil {
		errs = append(errs, err)
	}
	for name := range c.KEKs {
		if err := checkText("the name of a KEK", name, MaxNameSize); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Lifetime < time.Minute {
		errs = append(errs, fmt.Errorf("the lifetime of a DEK is %s, at least a minute is needed", c.Lifetime))
	}
	if c.MaxSeals < 1 || c.MaxSeals > MaxSeals {
		errs = append(errs, fmt.Errorf("the seals of a DEK are %d, 1 to %d are allowed", c.MaxSeals, MaxSeals))
	}
	if min(c.Interval, c.KEKTimeout, c.StoreTimeout, c.RefusalTime, c.RotateLag, c.RotateDelay, c.CheckInterval, c.DeniedGrace, c.OfflineLimit) < 0 || c.CacheSize < 0 {
		errs = append(errs, errors.New("a time or size is negative"))
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// clock returns nanoseconds since 1970.
func (m *Manager) clock() int64 { return m.config.Now().UnixNano() }

// Close ends what the Manager does for callers, who get ErrClosed, waits for it, and
// forgets all DEKs. End Run first. Keys that were handed out go on working.
func (m *Manager) Close() {
	m.tasks.close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sealers {
		s.live.Store(nil)
		s.current, s.candidate = nil, nil
	}
	clear(m.known)
	m.cache.purge()
	clear(m.config.AuthKey)
}

// ClusterID returns the id of the etcd cluster that holds the keyring, as its last
// answer said; 0 if there was none, or the store is not etcd.
func (m *Manager) ClusterID() uint64 { return m.store.ClusterID() }
