package kek

import "context"

// Why says what a call of a KEK is for. The values are a closed set.
type Why string

// The reasons to use a KEK.
const (
	WhyNewDEK        Why = "new DEK"        // a DEK was made and is to be wrapped
	WhyProof         Why = "proof"          // a new wrapping is unwrapped before anything relies on it
	WhyCacheMiss     Why = "cache miss"     // a value is to be opened whose DEK is not at hand
	WhyChangedRecord Why = "changed record" // somebody else changed a DEK's wrappings
	WhyRotation      Why = "rotation"       // a DEK is to be wrapped by another KEK, or version of it
	WhyImport        Why = "import"         // a record is to be put into the keyring from outside
	WhyVersion       Why = "version"        // whether the KEK was rotated is found out
	WhyHealthCheck   Why = "health check"   // whether the key may still be used is found out
)

// Purpose is what a call of a KEK is for, told by the caller for an audit trail.
// Providers need not look at it.
type Purpose struct {
	// DEK is the id of the DEK that is wrapped or unwrapped, as it is printed;
	// empty if what is wrapped is no DEK.
	DEK string
	// Why is the reason; empty if nobody gave one.
	Why Why
}

type purposeKey struct{}

// WithDEK returns a context for a call that is about one DEK.
func WithDEK(ctx context.Context, id string) context.Context {
	p := PurposeOf(ctx)
	p.DEK = id
	return context.WithValue(ctx, purposeKey{}, p)
}

// WithWhy returns a context for calls that have a reason. A later one replaces it.
func WithWhy(ctx context.Context, why Why) context.Context {
	p := PurposeOf(ctx)
	p.Why = why
	return context.WithValue(ctx, purposeKey{}, p)
}

// PurposeOf returns what a context's calls are for.
func PurposeOf(ctx context.Context) Purpose {
	p, _ := ctx.Value(purposeKey{}).(Purpose)
	return p
}
