package upstream

import (
	"sync"
	"time"
)

// clock is a clock that the test moves, and timers that the test fires.
type clock struct {
	mu     sync.Mutex // guards what follows
	t      time.Time
	timers chan timer
}

// timer is one call of after.
type timer struct {
	d    time.Duration
	fire chan time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1e9, 0), timers: make(chan timer, 100)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *clock) after(d time.Duration) <-chan time.Time {
	fire := make(chan time.Time, 1)
	c.timers <- timer{d, fire}
	return fire
}

// observer hands out what it was told.
type observer struct {
	probed chan Health
	dialed chan string
}

func newObserver() *observer {
	return &observer{probed: make(chan Health, 1000), dialed: make(chan string, 1000)}
}

func (o *observer) EndpointProbed(_ string, health Health, _ time.Duration)    { o.probed <- health }
func (o *observer) EndpointDialed(endpoint string, err error, _ time.Duration) { o.dialed <- endpoint }

// forget drops what was told so far.
func (o *observer) forget() {
	for {
		select {
		case <-o.probed:
		case <-o.dialed:
		default:
			return
		}
	}
}
