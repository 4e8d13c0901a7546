package dek

import (
	"time"

	"github.com/etcdseal/etcdseal/kek"
)

// Observer is told what a Manager does, for metrics. Its methods are called from
// many goroutines, CacheHit on every open, and must neither wait nor call the
// Manager. All labels are from closed sets, kekName from the configuration.
type Observer interface {
	// CacheHit counts a DEK that was wanted for opening and was at hand.
	CacheHit()
	// CacheMiss counts a DEK that was wanted for opening and was not at hand.
	CacheMiss()
	// KEKCall is a call to a KEK: op is kek.OpWrap, kek.OpUnwrap or
	// kek.OpVersion, class the zero Class if it succeeded.
	KEKCall(kekName, op string, class kek.Class, took time.Duration)
	// DEKCreated counts a new DEK that values are sealed with from now on.
	DEKCreated(kekName string)
	// RecordLost counts a record found missing or damaged in the store.
	RecordLost()
	// RecordRestored counts a record that this process put back.
	RecordRestored()
	// RecordRewrapped counts a record whose wrappings this process changed by a
	// rotation.
	RecordRewrapped()
	// RewrapFailed counts a record that could not be rewrapped, or not by all KEKs.
	// class is what a KEK said; the zero Class if the store was in the way.
	RewrapFailed(class kek.Class)
}

// NopObserver does nothing. Embedded, it keeps an Observer whole that wants to hear
// of a few things only.
type NopObserver struct{}

var _ Observer = NopObserver{}

// CacheHit implements Observer.
func (NopObserver) CacheHit() {}

// CacheMiss implements Observer.
func (NopObserver) CacheMiss() {}

// KEKCall implements Observer.
func (NopObserver) KEKCall(string, string, kek.Class, time.Duration) {}

// DEKCreated implements Observer.
func (NopObserver) DEKCreated(string) {}

// RecordLost implements Observer.
func (NopObserver) RecordLost() {}

// RecordRestored implements Observer.
func (NopObserver) RecordRestored() {}

// RecordRewrapped implements Observer.
func (NopObserver) RecordRewrapped() {}

// RewrapFailed implements Observer.
func (NopObserver) RewrapFailed(kek.Class) {}
