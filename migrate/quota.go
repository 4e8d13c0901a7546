package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// lookEvery is how many bytes are written at most between two looks at the quota.
const lookEvery = 8 << 20

// revisionOverhead is roughly what a revision takes in etcd's database beside its key and
// value.
const revisionOverhead = 100

// Estimate is what a Job would take, found out by a dry run.
type Estimate struct {
	Values   int64         // to be written
	Bytes    int64         // of new revisions: keys, values, overhead
	Growth   int64         // of the database file, after its free pages are used
	Duration time.Duration // at the rate given; 0 if there is none
	Space    *Space        // nil if nobody can tell
}

// Fits reports whether the Job would end before the database is near its quota.
func (e *Estimate) Fits() bool {
	return e.Space == nil || !e.Space.near(e.Growth)
}

// Space is the size of etcd's database on the member where it is largest.
type Space struct {
	Size    int64 // of the file
	InUse   int64 // of what is not free in it
	Quota   int64
	Assumed bool // the quota is not etcd's answer
	NoSpace bool // etcd has raised its alarm
}

// near reports whether writes should stop after the file grew. A tenth of the quota is
// kept back, unless there is room within the file; etcd counts free pages, too.
func (s *Space) near(growth int64) bool {
	size, free := s.Size+growth, s.Size-s.InUse
	return s.NoSpace || size+2*lookEvery >= s.Quota || size >= s.Quota/10*9 && free < s.Quota/20
}

// Bounds of a look at the quota: how long an endpoint may take to answer, and how long one
// that did not is left alone, so that a member which is down does not hold up a run.
const (
	statusTimeout = 5 * time.Second
	leaveAlone    = time.Minute
)

// space asks the endpoints for the size of their database. It returns nil without an
// error if there is nobody to ask.
func (r *run) space(ctx context.Context) (worst *Space, err error) {
	if r.engine.Maintenance == nil || len(r.engine.Endpoints) == 0 {
		return nil, nil
	}
	err = r.insist(ctx, func(ctx context.Context) (err error) {
		worst, err = r.worst(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("asking for the size of etcd's database: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	alarms, err := r.engine.Maintenance.AlarmList(bounded)
	if err == nil { // else the writes find out
		for _, alarm := range alarms.Alarms {
			worst.NoSpace = worst.NoSpace || alarm.Alarm == pb.AlarmType_NOSPACE
		}
	}
	return worst, nil
}

// worst returns the sizes on the endpoint that is nearest to its quota. It is an error if
// none answers.
func (r *run) worst(ctx context.Context) (worst *Space, err error) {
	now := r.engine.Now()
	var ask []string
	for _, endpoint := range r.engine.Endpoints {
		if !now.Before(r.away[endpoint]) {
			ask = append(ask, endpoint)
		}
	}
	if len(ask) == 0 {
		ask = r.engine.Endpoints
	}
	spaces, errs := make([]*Space, len(ask)), make([]error, len(ask))
	var asked sync.WaitGroup
	for i, endpoint := range ask {
		asked.Go(func() { spaces[i], errs[i] = r.engine.spaceOf(ctx, endpoint) })
	}
	asked.Wait()
	for i, s := range spaces {
		if s == nil {
			r.away[ask[i]] = now.Add(leaveAlone)
		} else if worst == nil || s.Quota-s.Size < worst.Quota-worst.Size {
			worst = s
		}
	}
	if worst == nil {
		return nil, errors.Join(errs...)
	}
	return worst, nil
}

func (e *Engine) spaceOf(ctx context.Context, endpoint string) (*Space, error) {
	ctx, cancel := context.WithTimeout(ctx, min(e.Timeout, statusTimeout))
	defer cancel()
	answer, err := e.Maintenance.Status(ctx, endpoint)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", endpoint, err)
	}
	s := &Space{Size: answer.DbSize, InUse: answer.DbSizeInUse, Quota: answer.DbSizeQuota}
	if s.Quota <= 0 {
		s.Quota, s.Assumed = e.Quota, true
	}
	return s, nil
}

// errAlarm says that etcd takes no writes any more.
var errAlarm = fmt.Errorf("%w. It has raised its alarm NOSPACE, which is to be ended by `etcdctl alarm disarm` after that", ErrQuota)

// checkQuota fails if the quota is near.
func (r *run) checkQuota(ctx context.Context) error {
	r.written = 0
	space, err := r.space(ctx)
	switch {
	case err != nil:
		return err
	case space == nil || !space.near(0):
		return nil
	case space.NoSpace:
		return errAlarm
	}
	assumed := ""
	if space.Assumed {
		assumed = " (assumed, etcd does not say it: --quota does)"
	}
	return fmt.Errorf("%w: %d bytes on disk, %d in use, the quota is %d%s", ErrQuota, space.Size, space.InUse, space.Quota, assumed)
}

// watchQuota is checkQuota after each lookEvery bytes.
func (r *run) watchQuota(ctx context.Context) error {
	if r.written < lookEvery {
		return nil
	}
	return r.checkQuota(ctx)
}

// estimate says what was found out by a dry run.
func (r *run) estimate(ctx context.Context) error {
	res := r.result
	est := &Estimate{Values: res.Left}
	overhead := int64(revisionOverhead)
	if r.job.Kind == Encrypt {
		overhead += 48
	}
	est.Bytes = res.LeftBytes + overhead*res.Left
	est.Growth = est.Bytes
	var err error
	if est.Space, err = r.space(ctx); err != nil {
		return err
	}
	if est.Space != nil {
		est.Growth = max(0, est.Bytes-(est.Space.Size-est.Space.InUse))
	}
	if r.engine.Rate > 0 {
		est.Duration = time.Duration(float64(res.Left) / float64(r.engine.Rate) * float64(time.Second))
	}
	res.Estimate = est
	return nil
}
