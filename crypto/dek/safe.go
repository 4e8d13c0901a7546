package dek

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// doubt is how many records have other wrappings than by a version of a KEK, none of
// which gave the DEK, and why one did not.
type doubt struct {
	records int
	err     error
}

// prove opens records without each version of a KEK that is in them and would be called
// safe: that is said of no version that a record needs since its other wrappings are no
// good. It also opens those of which nothing else has shown that they can be. A KEK that did
// not answer is not asked again.
func (c *counting) prove(ctx context.Context, records []*Record) {
	silent := map[string]error{}
	for _, r := range records {
		results := map[*Wrapping]error{}
		opens := func(w *Wrapping) error {
			err, asked := results[w]
			if !asked {
				if err = silent[w.KEK]; err == nil {
					err = c.opens(ctx, r, w)
				}
				if err != nil && passing(err) {
					silent[w.KEK] = err
				}
				results[w] = err
			}
			return err
		}
		c.noteUnopened(r, opens)
		seen := map[KEKVersion]bool{}
		for _, w := range r.Wrappings {
			key := KEKVersion{w.KEK, w.Version}
			v := c.versions[key]
			if seen[key] || v.Current && c.used[v.KEK] || len(c.out.Strange) > 0 {
				continue // said to be unsafe anyway
			}
			seen[key] = true
			if _, ok := c.freed(r, key); ok {
				c.doubt(key, c.openWithout(r, key, opens))
			}
		}
	}
}

// noteUnopened notes a record that no KEK's current version wraps if no wrapping gives its DEK. One
// that a current version wraps was proved by whoever rewrapped it.
func (c *counting) noteUnopened(r *Record, opens func(*Wrapping) error) {
	current := func(w Wrapping) bool { return c.versions[KEKVersion{w.KEK, w.Version}].Current }
	if !c.m.wraps.canOpen(r, nobody) || slices.ContainsFunc(r.Wrappings, current) {
		return
	}
	if err := c.openWithout(r, KEKVersion{}, opens); err != nil && !passing(err) {
		c.out.Unopened = append(c.out.Unopened, UnopenedRecord{r.ID, err})
	}
}

// opens reports why a wrapping does not give its record's DEK, nil if it does.
func (c *counting) opens(ctx context.Context, r *Record, w *Wrapping) error {
	dek, err := c.m.wraps.unwrap(ctx, c.m.wraps.keks[w.KEK], r.ID, w)
	clear(dek)
	return err
}

// openWithout opens a record without a version of a KEK.
func (c *counting) openWithout(r *Record, without KEKVersion, opens func(*Wrapping) error) error {
	var errs []error
	for i := range r.Wrappings {
		w := &r.Wrappings[i]
		if (KEKVersion{w.KEK, w.Version}) == without || c.m.wraps.keks[w.KEK] == nil {
			continue
		}
		err := opens(w)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return errNothingStays
	}
	return joinKEKErrors(errs)
}

// doubt notes that a record could not be opened without a version of a KEK, if there is an
// error.
func (c *counting) doubt(key KEKVersion, err error) {
	if err == nil {
		return
	}
	if c.doubts[key] == nil {
		c.doubts[key] = &doubt{err: err}
	}
	c.doubts[key].records++
	c.versions[key].Needed++
}

// lagging returns until when processes may wrap by a version that is not the current one
// any more, since they have not heard of that: zero if that is over. ok is false if no
// record is wrapped by the current one yet.
func (c *counting) lagging(v *VersionStatus) (until time.Time, ok bool) {
	now := c.m.config.Now()
	if v.Current || !c.used[v.KEK] || v.Records == 0 && now.Sub(v.Until) >= c.p.lag {
		return time.Time{}, true
	}
	first, ok := c.current[v.KEK]
	if ok && now.Sub(first) >= c.p.lag {
		return time.Time{}, true
	}
	return first.Add(c.p.lag), ok
}

// judge says of each version whether it is safe to disable.
func (c *counting) judge() {
	for _, name := range slices.Sorted(maps.Keys(c.leftover)) {
		c.out.Leftover = append(c.out.Leftover, *c.leftover[name])
	}
	for _, key := range slices.SortedFunc(maps.Keys(c.versions), compareVersions) {
		v := c.versions[key]
		v.Used = c.used[v.KEK]
		because := func(format string, args ...any) { v.Because = append(v.Because, fmt.Sprintf(format, args...)) }
		if v.Needed > 0 {
			v.Until = time.Time{}
		}
		doubts := c.doubts[key]
		if doubts == nil {
			doubts = &doubt{}
		}
		if n := v.Needed - doubts.records; n > 0 {
			because("%s by nothing else that is configured", wrapped(n))
		}
		if doubts.records > 0 {
			because("%s by nothing else that gives the DEK (%v)", wrapped(doubts.records), doubts.err)
		}
		if _, known := c.p.views[v.KEK]; v.Used && !known {
			because("the KEK does not say which version is the current one")
		}
		if v.Used && v.Current {
			because("it is the current version of a KEK that rules name")
		}
		if until, ok := c.lagging(v); !ok {
			because("no record is wrapped by the KEK's current version yet")
		} else if !until.IsZero() {
			because("processes that have not heard of the current version may wrap by it until %s", until.UTC().Format(time.RFC3339))
		}
		if n := len(c.out.Strange); n > 0 {
			because("%s unknown to this configuration, which may need it", records(n))
		}
		c.out.Versions = append(c.out.Versions, *v)
	}
	slices.SortStableFunc(c.out.Versions, func(a, b VersionStatus) int {
		return cmp.Or(cmp.Compare(a.KEK, b.KEK), cmp.Compare(order(a), order(b)), b.Until.Compare(a.Until), cmp.Compare(a.Version, b.Version))
	})
}

func order(v VersionStatus) int {
	switch {
	case v.Current:
		return 0
	case v.Records > 0:
		return 1
	default:
		return 2
	}
}

func compareVersions(a, b KEKVersion) int {
	return cmp.Or(cmp.Compare(a.KEK, b.KEK), cmp.Compare(a.Version, b.Version))
}

func records(n int) string {
	if n == 1 {
		return "1 record is"
	}
	return fmt.Sprintf("%d records are", n)
}

func wrapped(n int) string { return records(n) + " wrapped" }
