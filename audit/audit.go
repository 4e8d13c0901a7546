// Package audit writes down what is done with keys: one JSON line for each use of a
// KEK and for each change of a DEK's state, for people who compare it with the key
// holder's own log, or ask later who opened what with which key.
//
// It guarantees that
//
//   - a line is written before its effect: what a KEK wraps or unwraps is given to the
//     caller only after the line is in the file, and flushed to the disk;
//   - if the line cannot be written, the operation fails and a DEK that was unwrapped is
//     wiped, unless Config.Continue says otherwise;
//   - no line holds a DEK, wrapped bytes, a value, a token or text that somebody else
//     wrote beyond the provider's codes and request ids, which are cut to a length.
//
// It does not guard the file against somebody who may write to it, or is root here: send
// the lines to another machine for that, and compare them with the key holder's log.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/etcdseal/etcdseal/kek"
)

// The values of Line.Op beside those of kek.Error.Op.
const (
	OpCreate  = "create"  // a DEK's record is stored, and the DEK seals from then on
	OpRewrap  = "rewrap"  // a DEK's record is stored with another wrapping, by this key
	OpRemove  = "remove"  // a DEK's record is stored without a wrapping that it had
	OpRefuse  = "refuse"  // what a KEK unwrapped is not the DEK that was looked for
	OpDeny    = "deny"    // a DEK stops sealing
	OpRestore = "restore" // a DEK that had stopped seals again
	OpDrop    = "drop"    // an opened DEK is forgotten
	OpBury    = "bury"    // a DEK's record is removed from the keyring for good
	OpImport  = "import"  // a DEK's record, or a wrapping of it, is put into the keyring from outside
	OpResume  = "resume"  // lines were lost before this one
)

// Line is one line. Members that do not apply are left out.
type Line struct {
	// Time is when the operation began, in UTC.
	Time time.Time `json:"time"`
	// Op is what was done.
	Op string `json:"op"`
	// Why is what for, a kek.Why or a state of the KEK's.
	Why string `json:"why,omitempty"`
	// KEK is the KEK's name in the configuration.
	KEK string `json:"kek,omitempty"`
	// KeyID names the key with its version, in the provider's terms: for Key
	// Vault the key's URL.
	KeyID string `json:"keyID,omitempty"`
	// DEK is the DEK's id; none if what was wrapped is no DEK.
	DEK string `json:"dek,omitempty"`
	// Result is a kek.Class: "ok", or why it was not done.
	Result string `json:"result"`
	// Status is the HTTP status of the provider's last answer.
	Status int `json:"status,omitempty"`
	// Code is the provider's error code, the general and the inner part with a
	// slash between them.
	Code string `json:"code,omitempty"`
	// RequestID and ClientRequestID are the last request's names, by which the
	// provider's own log has it.
	RequestID       string `json:"requestID,omitempty"`
	ClientRequestID string `json:"clientRequestID,omitempty"`
	// Tries is how often the provider was asked. None: it was not.
	Tries int `json:"tries,omitempty"`
	// Duration is how long it took, in milliseconds.
	Duration float64 `json:"durationMs,omitempty"`
	// Lost is how many lines could not be written before this one.
	Lost int64 `json:"lost,omitempty"`
}

// maxText bounds what providers put into a line, in bytes.
const maxText = 512

// ErrUnwritten says that an operation was not done, or its result not used, since its
// line could not be written.
var ErrUnwritten = errors.New("the audit line cannot be written, and without it nothing is done with keys: make room, or see that audit.file can be written")

// Config says where the lines go. One of File and Output is set.
type Config struct {
	// File is the path of a regular file. It is made with mode 0600 if it is not
	// there, and only ever appended to.
	File string
	// Output gets the lines if File is empty. The Log does not close it.
	Output io.Writer
	// Continue says that operations go on when their lines cannot be written;
	// how many were lost is in the first line that can. Default: they fail.
	Continue bool
	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Logger gets changes of whether lines can be written; nil is none.
	Logger *slog.Logger
}

// Log is where lines are written. It is safe for concurrent use.
type Log struct {
	config Config

	mu     sync.Mutex // guards all below, and is held while a line is written
	file   file       // nil if there is none, or it could not be opened again
	failed error      // why the last line could not be written
	torn   bool       // a part of a line may be there
	lost   int64      // lines since the last one that was written
	total  int64      // lines that were lost since the start
	keyIDs map[keyVersion]string
}

// keyVersion is a version of a KEK of the configuration.
type keyVersion struct{ kek, version string }

// maxKeyIDs bounds how many keys are known by their provider's names.
const maxKeyIDs = 1024

// named notes how a provider names a key that it used. The caller holds mu.
func (l *Log) named(kekName, version, keyID string) {
	if l.keyIDs == nil || len(l.keyIDs) >= maxKeyIDs {
		l.keyIDs = make(map[keyVersion]string)
	}
	l.keyIDs[keyVersion{kekName, version}] = keyID
}

// KeyID returns how the provider names a version of a KEK, if it used it here since the
// start, so that lines about it can be found together; else it returns the version.
func (l *Log) KeyID(kekName, version string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id, ok := l.keyIDs[keyVersion{kekName, version}]; ok {
		return id
	}
	return cut(version)
}

// Open opens the file.
func Open(c Config) (*Log, error) {
	if (c.File == "") == (c.Output == nil) {
		return nil, errors.New("opening audit log: want either a file or an output")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{config: c}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the file in place of the one before. The caller holds mu, or nobody else
// has the Log yet.
func (l *Log) open() error {
	if l.config.File == "" {
		l.file = unflushed{l.config.Output}
		return nil
	}
	opened, err := openFile(l.config.File)
	if err != nil {
		return fmt.Errorf("opening audit.file: %w", err)
	}
	if l.file != nil {
		_ = l.file.Close() // every line in it was flushed
	}
	l.file = opened
	return nil
}

// Reopen opens the file by its name again, after somebody has moved it away. If that
// fails, the Log goes on with the one that it has.
func (l *Log) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open()
}

// Write writes one line, with the time now if it has none. The error is ErrUnwritten
// with the cause, and nil under Config.Continue.
func (l *Log) Write(line Line) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(line)
}

// write is Write for a caller who holds mu.
func (l *Log) write(line Line) error {
	if line.Time.IsZero() {
		line.Time = l.config.Now()
	}
	line.Time = line.Time.UTC()
	line.Lost = l.lost
	err := l.append(line)
	if err == nil {
		if l.failed != nil {
			l.config.Logger.Info("audit lines can be written again", "lost", l.lost)
		}
		l.failed, l.lost = nil, 0
		return nil
	}
	if l.failed == nil {
		l.config.Logger.Error("audit lines cannot be written", "error", err.Error(), "continue", l.config.Continue)
	}
	l.failed = err
	l.lost++
	l.total++
	if l.config.Continue {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnwritten, err)
}

// append puts a line at the end of the file. One that is there in part only is ended
// first, so that it spoils no other.
func (l *Log) append(line Line) error {
	var b bytes.Buffer
	if l.torn {
		b.WriteByte('\n')
	}
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(line); err != nil {
		return err
	}
	n, err := l.file.Write(b.Bytes())
	if err == nil {
		l.torn = false
		return l.file.Sync()
	}
	l.torn = l.torn || n > 0
	return err
}

// Ready reports why lines cannot be written, nil if they can. After a failure it tries
// by writing a line of OpResume.
func (l *Log) Ready(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil || l.config.Continue {
		return nil
	}
	return l.resume()
}

// usable is Ready for whoever is about to use a KEK: it is not asked in vain.
func (l *Log) usable() error { return l.Ready(context.Background()) }

// resume tries to write after a failure. The caller holds mu.
func (l *Log) resume() error {
	if err := l.write(Line{Op: OpResume, Result: kek.Class(0).String()}); err != nil {
		l.lost-- // a line that nobody needed
		l.total--
		return err
	}
	return nil
}

// Lost returns how many lines could not be written since the start.
func (l *Log) Lost() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Close closes the file. Lines after it fail.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.file.Close()
	l.file = closed{}
	return err
}
