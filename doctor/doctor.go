// Package doctor looks at everything that an etcdseal depends on, before it goes live and
// while it runs: its configuration and the files that it names, certificates, etcd's
// members, KEKs, the keyring, and what lies under the rules. It says what it found, and
// what to do about it.
//
// It guarantees that
//
//   - nothing is written to etcd's keys, to the keyring or to a KEK: no revision is spent,
//     and a key that is not there is not made. KEKs wrap and unwrap random bytes that are
//     thrown away. Beside a login, the one request that goes through etcd's log asks, in a
//     transaction that can never be true, whether the keyring may be written, and is made
//     only where etcd knows who asks;
//   - each check is bounded, so that a dead etcd or a KEK that hangs costs its time and no
//     more, and none of them hides what the others find;
//   - no finding holds a value, a DEK, a token or a password. Names of keys are in them.
//
// It neither prints nor reads the environment.
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/migrate"
	"github.com/etcdseal/etcdseal/proxy/upstream"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"      // as it should be; Do may have a remark
	Warning Level = "warning" // works, and should be looked at before going live
	Problem Level = "problem" // does not work, or is not safe
	Unknown Level = "unknown" // could not be found out
)

// Area groups findings.
type Area string

// The areas, in the order of a report.
const (
	Configuration Area = "configuration"
	Process       Area = "process"
	Certificates  Area = "certificates"
	Etcd          Area = "etcd"
	Permissions   Area = "permissions"
	KEKs          Area = "keks"
	Keyring       Area = "keyring"
	Rules         Area = "rules"
	Requests      Area = "requests"
)

// Finding is one thing that was looked at.
type Finding struct {
	Area    Area   `json:"area"`
	Level   Level  `json:"level"`
	Subject string `json:"subject"`      // what was looked at
	Found   string `json:"found"`        // what it is like
	Do      string `json:"do,omitempty"` // what to do about it; a remark if the level is OK
}

// Defaults of Config.
const (
	DefaultTimeout    = 5 * time.Second
	DefaultMaxSampled = 2000
)

// Config is what is looked at: the parts of an etcdseal that could be opened, and why the
// others could not. What is nil is reported and not looked at further.
type Config struct {
	// File is the configuration's name.
	File string
	// Config is the configuration, nil if its text has problems; Err is what
	// config.Read said.
	Config *config.Config
	Err    error
	// Etcd knows the members, whatever the client certificate's name; Client asks
	// them, and its endpoints are set to those that answer. Both are nil if EtcdErr is
	// not.
	Etcd    *upstream.Pool
	Client  *migrate.Client
	EtcdErr error
	// KEKs are those of the configuration, by name.
	KEKs map[string]Key
	// Store is the keyring's, AuthKey its authentication key. StoreErr is why either
	// cannot be had.
	Store    dek.Store
	AuthKey  []byte
	StoreErr error
	// AuditErr is why the audit log cannot be written, so that no KEK may be used; nil
	// if it can, or there is none. Auditor hears of what is done with DEKs; nil is none.
	AuditErr error
	Auditor  dek.Auditor
	// Host is the process that looks.
	Host Host

	// Timeout bounds one question to etcd; 0 is DefaultTimeout.
	Timeout time.Duration
	// KEKTimeout bounds one call to a KEK; 0 is dek.DefaultKEKTimeout.
	KEKTimeout time.Duration
	// RotateLag is dek.Config's.
	RotateLag time.Duration
	// MaxSampled is how many values of a rule are looked at; 0 is DefaultMaxSampled.
	MaxSampled int
	// Now tells the time; nil is time.Now.
	Now func() time.Time
}

// Examine makes all checks and returns what they found, area by area. It takes no longer
// than the slowest KEK and some tens of seconds for etcd.
func Examine(ctx context.Context, c Config) []Finding {
	d := &doctor{Config: c}
	d.complete()
	if d.Config.Config == nil {
		return inOrder(d.together(ctx, d.configuration, d.nothingElse, d.process))
	}
	found := d.together(ctx, d.configuration, d.process, d.certificates, d.members, d.keks)
	found = append(found, d.together(ctx, d.permissions, d.contents)...)
	return inOrder(found)
}

// doctor is one examination.
type doctor struct {
	Config
	usable []string // endpoints that can be asked; members finds them
	// silent are the KEKs that were not heard, with why; keks finds them. They are not
	// waited for again.
	silent map[string]error
}

func (d *doctor) complete() {
	if d.Timeout == 0 {
		d.Timeout = DefaultTimeout
	}
	if d.KEKTimeout == 0 {
		d.KEKTimeout = dek.DefaultKEKTimeout
	}
	if d.MaxSampled == 0 {
		d.MaxSampled = DefaultMaxSampled
	}
	if d.Now == nil {
		d.Now = time.Now
	}
}

// check is one check. It ends when ctx does.
type check func(ctx context.Context, n *notes)

// together makes checks at the same time.
func (d *doctor) together(ctx context.Context, checks ...check) []Finding {
	var all sync.WaitGroup
	written := make([]notes, len(checks))
	for i, check := range checks {
		all.Go(func() { check(ctx, &written[i]) })
	}
	all.Wait()
	var found []Finding
	for _, n := range written {
		found = append(found, n.findings...)
	}
	return found
}

// inOrder puts findings into the order of their areas.
func inOrder(found []Finding) []Finding {
	var ordered []Finding
	for _, area := range []Area{Configuration, Process, Certificates, Etcd, Permissions, KEKs, Keyring, Rules, Requests} {
		for _, f := range found {
			if f.Area == area {
				ordered = append(ordered, f)
			}
		}
	}
	return ordered
}

// notes takes down findings. It is used by one goroutine.
type notes struct{ findings []Finding }

// add notes a finding with what to do about it, which may be "".
func (n *notes) add(area Area, level Level, subject, do, format string, args ...any) {
	n.findings = append(n.findings, Finding{Area: area, Level: level, Subject: subject, Found: fmt.Sprintf(format, args...), Do: do})
}

// worst returns the worse one of two levels, Unknown being better than Warning.
func worst(a, b Level) Level {
	for _, level := range []Level{Problem, Warning, Unknown} {
		if a == level || b == level {
			return level
		}
	}
	return OK
}

// Worst returns the worst level among findings, OK if there are none.
func Worst(found []Finding) Level {
	level := OK
	for _, f := range found {
		level = worst(level, f.Level)
	}
	return level
}

// nothingElse says that a configuration is needed to go on.
func (d *doctor) nothingElse(_ context.Context, n *notes) {
	n.add(Configuration, Unknown, "everything else", "mend the configuration, and run this again", "not looked at, since the configuration has problems")
}

// plural returns a number with what it counts.
func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// size returns a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
