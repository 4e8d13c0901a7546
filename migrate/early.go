package migrate

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// EarlyProgress reports whether an etcd of a version, or of one that cannot be read, may
// say how far a watch is before it has told all that came until then (etcd's issue 15220,
// mended in 3.4.25 and 3.5.8). What it retains cannot be read for sure.
func EarlyProgress(version string) bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n < 3 {
		return true
	}
	switch {
	case major != 3 || minor > 5:
		return major < 3
	case minor == 5:
		return patch < 8
	default:
		return minor < 4 || patch < 25
	}
}

// errEarly is why history is not read.
var errEarly = errors.New("this version may leave out a part of its history (etcd issue 15220): use 3.5.8 or later")

// teller is an etcd that says what it is.
type teller interface {
	Endpoints() []string
	Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error)
}

// tellsAll returns an error if the end of a watch cannot be relied on. A member that does
// not answer is not where the watch goes, as long as another one does.
func (e *Engine) tellsAll(ctx context.Context) error {
	etcd, ok := e.KV.(teller)
	if !ok {
		return errNoWatcher
	}
	var errs []error
	known := false
	for _, endpoint := range etcd.Endpoints() {
		bounded, cancel := context.WithTimeout(ctx, e.Timeout)
		status, err := etcd.Status(bounded, endpoint)
		cancel()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", endpoint, err))
		case EarlyProgress(status.Version):
			return fmt.Errorf("%s is etcd %q: %w", endpoint, status.Version, errEarly)
		default:
			known = true
		}
	}
	if !known {
		return fmt.Errorf("asking for etcd's version: %w", errors.Join(errs...))
	}
	return nil
}
