package azure_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/azure"
	"github.com/etcdseal/etcdseal/kek/azure/emulator"
)

// version asks for the version.
func version(t *testing.T, k kek.KEK) string {
	t.Helper()
	v, err := k.Version(t.Context())
	if err != nil {
		t.Errorf("asking for the version: %v", err)
	}
	return v
}

// until asks for the version every ten seconds of the bubble's time until it is
// another, and returns how long that took. It gives up after an hour.
func until(t *testing.T, k kek.KEK, want string) time.Duration {
	t.Helper()
	start := time.Now()
	for version(t, k) != want {
		if time.Since(start) > time.Hour {
			t.Fatalf("the version is still not %s", want)
		}
		time.Sleep(10 * time.Second)
	}
	return time.Since(start)
}

// A new version is followed within the interval and one look more; until then the
// old one wraps, and what it wrapped opens for ever.
func TestRotationIsFollowed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		first, w := version(t, k), must(t, k)
		second := l.vault.Rotate("etcd")
		if got := must(t, k); got.Version != first {
			t.Errorf("wrapped by %s at once", got.Version)
		}
		l.ForgetCalls()
		if d := until(t, k, second); d < 4*time.Minute || d > 6*time.Minute+10*time.Second {
			t.Errorf("it took %v", d)
		}
		if n := l.Count(emulator.OpGet); n != 2 {
			t.Errorf("the vault was asked %d times, want 2", n)
		}
		after := must(t, k)
		if after.Version != second {
			t.Errorf("wrapped by %s, want %s", after.Version, second)
		}
		opens(t, k, w)
		opens(t, k, after)
		third := l.vault.Rotate("etcd")
		until(t, k, third)
		opens(t, k, w)
	})
}

// A version that was named once only, by a replica that is ahead or behind, is never
// used.
func TestVersionIsBelievedWhenSeenTwice(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		first := version(t, k)
		second := l.vault.Rotate("etcd")
		l.vault.MakeCurrent("etcd", first)
		for i := range 20 { // the vault's answers change from look to look
			current := []string{first, second}[i%2]
			l.vault.MakeCurrent("etcd", current)
			before := l.Count(emulator.OpGet)
			for l.Count(emulator.OpGet) == before {
				time.Sleep(10 * time.Second)
				if got := version(t, k); got != first {
					t.Fatalf("look %d: %s is believed", i, got)
				}
			}
		}
		until(t, k, second)
	})
}

// However often the version is asked for, the vault is asked about every five
// minutes, and not by all processes at the same moment.
func TestPollingIntervalAndJitter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		for range 24 * 60 {
			version(t, k)
			time.Sleep(time.Minute)
		}
		if n := l.Count(emulator.OpGet); n < 230 || n > 320 {
			t.Errorf("the vault was asked %d times in a day", n)
		}
		k2 := l.open(t, func(c *azure.Config) { c.PollInterval = time.Hour })
		version(t, k2)
		l.ForgetCalls()
		var at []time.Time
		for range 24 * 3600 / 10 {
			version(t, k2)
			if l.Count(emulator.OpGet) > len(at) {
				at = append(at, time.Now())
			}
			time.Sleep(10 * time.Second)
		}
		different := map[time.Duration]bool{}
		for i := range at[1:] {
			d := at[i+1].Sub(at[i])
			different[d] = true
			if d < 54*time.Minute || d > 66*time.Minute+10*time.Second {
				t.Errorf("%v between two looks, want an hour and at most a tenth", d)
			}
		}
		if len(different) < 5 {
			t.Errorf("the intervals hardly differ: %v", different)
		}
	})
}

// A new version that cannot wrap is not followed, and the log says so once.
func TestUnusableVersionIsNotFollowed(t *testing.T) {
	for name, spoil := range map[string]func(v *emulator.Vault){
		"disabled":      func(v *emulator.Vault) { v.SetEnabled("etcd", "", false) },
		"not yet valid": func(v *emulator.Vault) { v.SetNotBefore("etcd", "", time.Now().Add(time.Hour*24)) },
		"expired":       func(v *emulator.Vault) { v.SetExpires("etcd", "", time.Now()) },
		"not RSA":       func(v *emulator.Vault) { v.CreateKey("etcd", "EC", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				l := newLab(t)
				k := l.open(t, nil)
				first := version(t, k)
				if name != "not RSA" {
					l.vault.Rotate("etcd")
				}
				spoil(l.vault)
				for range 60 {
					time.Sleep(time.Minute)
					if version(t, k) != first {
						t.Fatal("it is followed")
					}
				}
				must(t, k)
				if n := strings.Count(l.log.String(), "level=WARN"); n != 1 {
					t.Errorf("the log says so %d times:\n%s", n, l.log)
				}
			})
		})
	}
}

// When the version that wraps is switched off and there is another one, the next
// wrapping uses that at once.
func TestDisabledVersionIsReplacedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		first := version(t, k)
		second := l.vault.Rotate("etcd")
		l.vault.SetEnabled("etcd", first, false)
		w := must(t, k)
		if w.Version != second || version(t, k) != second {
			t.Errorf("wrapped by %s, want %s", w.Version, second)
		}
		opens(t, k, w)
	})
}

// A switched-off key with nothing in its place does not have the vault asked over
// and over.
func TestDisabledKeyIsNotHammered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		must(t, k)
		l.vault.SetEnabled("etcd", "", false)
		l.ForgetCalls()
		for range 60 {
			_, err := k.Wrap(t.Context(), testDEK)
			wants(t, "wrapping", err, kek.Disabled)
			time.Sleep(time.Second)
		}
		if n := l.Count(emulator.OpGet); n > 3 {
			t.Errorf("the vault was asked for the latest version %d times in a minute", n)
		}
		l.vault.SetEnabled("etcd", "", true)
		must(t, k)
	})
}

// A vault that does not answer for the version is no reason not to wrap.
func TestWrappingGoesOnWithoutPolling(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		first := version(t, k)
		fault := l.Inject(emulator.ServerError(emulator.OpGet, 503))
		time.Sleep(10 * time.Minute)
		_, err := k.Version(t.Context())
		wants(t, "the version", err, kek.Unavailable, "503")
		if w := must(t, k); w.Version != first {
			t.Errorf("wrapped by %s", w.Version)
		}
		fault.Clear()
		time.Sleep(time.Minute)
		if got := version(t, k); got != first {
			t.Errorf("the version is %s", got)
		}
	})
}

// Those who ask while somebody else does get what is believed, at once; without
// anything believed they wait.
func TestOnlyOneAsks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() { version(t, k) })
		}
		group.Wait()
		if n := l.Count(emulator.OpGet); n != 2 { // the first one brings the challenge
			t.Errorf("the vault was asked %d times", n)
		}
		time.Sleep(10 * time.Minute)
		l.Inject(emulator.Fault{Op: emulator.OpGet, Delay: 10 * time.Second})
		group.Go(func() { version(t, k) })
		synctest.Wait()
		if d := took(func() { version(t, k); must(t, k) }); d != 0 {
			t.Errorf("others wait for %v", d)
		}
		group.Wait()
	})
}

func TestCreated(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		k := l.open(t, nil)
		first := version(t, k)
		time.Sleep(time.Hour)
		second := l.vault.Rotate("etcd")
		a, errA := k.Created(t.Context(), first)
		b, errB := k.Created(t.Context(), second)
		if errA != nil || errB != nil || b.Sub(a) != time.Hour {
			t.Errorf("%v, %v; %v, %v", a, errA, b, errB)
		}
		_, err := k.Created(t.Context(), strings.Repeat("0", 32))
		wants(t, "a version that is not there", err, kek.NotFound)
		_, err = k.Created(t.Context(), "..")
		wants(t, "a name that is none", err, kek.NotFound)
	})
}
