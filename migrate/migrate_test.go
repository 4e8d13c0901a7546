package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/migrate"
)

func TestThereAndBack(t *testing.T) {
	l := newLab(t)
	want := l.fill(730)
	lease, err := l.client.Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	l.put(prefix+"leased", "with a lease", clientv3.WithLease(lease.ID))
	want[prefix+"leased"] = "with a lease"
	l.put(prefix+"empty", "")
	want[prefix+"empty"] = ""
	l.put("/registry/pods/a", "not under a rule")
	l.put(prefix+"ns/00003/below", strings.Repeat("large", 50_000))
	want[prefix+"ns/00003/below"] = strings.Repeat("large", 50_000)

	p := l.process()
	dry := l.run(l.engine(p, true, func(c *migrate.Config) { c.Rate = 100 }), migrate.Job{Kind: migrate.Encrypt, DryRun: true})
	if dry.Left != 732 || dry.Changed != 0 || dry.Estimate == nil || dry.Estimate.Values != 732 || dry.Estimate.Duration != 7320*time.Millisecond ||
		dry.Estimate.Space.Quota <= 0 || !dry.Estimate.Fits() || dry.Estimate.Bytes < 250_000 {
		t.Errorf("dry run: %+v, %+v", dry, dry.Estimate)
	}
	if _, sealed := l.values(p); sealed != 0 {
		t.Errorf("a dry run sealed %d values", sealed)
	}

	done := l.run(l.engine(p, true), migrate.Job{Kind: migrate.Encrypt})
	if done.Changed != 732 || done.Done != 732 || done.Empty != 1 || done.Passes != 2 || !done.Clean() {
		t.Errorf("encrypt: %+v", done)
	}
	got, sealed := l.values(l.process()) // another process
	if diff := cmp.Diff(want, got); diff != "" || sealed != 732 {
		t.Errorf("%d values are sealed, and (-want +got):\n%s", sealed, diff)
	}
	l.records()
	leases, err := l.client.TimeToLive(t.Context(), lease.ID, clientv3.WithAttachedKeys())
	if err != nil || len(leases.Keys) != 1 || string(leases.Keys[0]) != prefix+"leased" {
		t.Errorf("the lease has keys %q, %v", leases.Keys, err)
	}
	if other, err := l.client.Get(t.Context(), "/registry/pods/a"); err != nil || string(other.Kvs[0].Value) != "not under a rule" {
		t.Errorf("another value became %q, %v", other.Kvs[0].Value, err)
	}
	if again := l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt}); again.Changed != 0 || again.Passes != 1 {
		t.Errorf("encrypt again: %+v", again)
	}

	_, err = l.engine(p, true).Run(t.Context(), migrate.Job{Kind: migrate.Decrypt})
	if !errors.Is(err, migrate.ErrStillSealing) {
		t.Errorf("decrypting while a rule seals: %v", err)
	}
	back := l.run(l.engine(l.process(), false), migrate.Job{Kind: migrate.Decrypt})
	if back.Changed != 732 || back.Done != 732 || !back.Clean() {
		t.Errorf("decrypt: %+v", back)
	}
	got, sealed = l.values(p)
	if diff := cmp.Diff(want, got); diff != "" || sealed != 0 {
		t.Errorf("%d values are sealed, and (-want +got):\n%s", sealed, diff)
	}
	if leases, err = l.client.TimeToLive(t.Context(), lease.ID, clientv3.WithAttachedKeys()); err != nil || len(leases.Keys) != 1 {
		t.Errorf("the lease has keys %q, %v", leases.Keys, err)
	}
}

func TestPrefix(t *testing.T) {
	l := newLab(t)
	l.fill(20)
	p := l.process()
	if done := l.run(l.engine(p, true), migrate.Job{Kind: migrate.Encrypt, Prefix: prefix + "ns/0001"}); done.Changed != 10 {
		t.Errorf("%+v", done)
	}
	if _, sealed := l.values(p); sealed != 10 {
		t.Errorf("%d are sealed, want 10", sealed)
	}
	_, err := l.engine(p, true).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt, Prefix: "/registry/pods/"})
	if !errors.Is(err, migrate.ErrNoRule) {
		t.Errorf("a prefix under no rule: %v", err)
	}
}

func TestReencrypt(t *testing.T) {
	l := newLab(t)
	want := l.fill(150)
	old := l.process()
	l.run(l.engine(old, true), migrate.Job{Kind: migrate.Encrypt})
	before := time.Now().Add(time.Hour)
	later := func(c *migrate.Config) { c.Now = func() time.Time { return before } }

	fresh := l.process()
	_, err := l.engine(fresh, true).Run(t.Context(), migrate.Job{Kind: migrate.Reencrypt, OlderThan: before})
	contains(t, err, "in the future")
	_, err = l.engine(fresh, true).Run(t.Context(), migrate.Job{Kind: migrate.Reencrypt})
	contains(t, err, "a time or a DEK")
	// The process's own DEK is older than the time, too: it must not go on for ever.
	_, err = l.engine(old, true, later).Run(t.Context(), migrate.Job{Kind: migrate.Reencrypt, OlderThan: before})
	contains(t, err, "values are to be taken off")

	key, err := old.sealer.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := l.run(l.engine(fresh, true), migrate.Job{Kind: migrate.Reencrypt, DEK: key.ID()})
	if done.Changed != 150 || !done.Clean() {
		t.Errorf("%+v", done)
	}
	if none := l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Reencrypt, OlderThan: time.Now().Add(-time.Hour)}); none.Changed != 0 || none.Done != 150 {
		t.Errorf("DEKs that are not so old: %+v", none)
	}
	got, sealed := l.values(l.process())
	if diff := cmp.Diff(want, got); diff != "" || sealed != 150 {
		t.Errorf("%d values are sealed, and (-want +got):\n%s", sealed, diff)
	}
	answer, err := l.client.Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range answer.Kvs {
		if id, _ := envelope.Parse(kv.Value); id == key.ID() {
			t.Fatalf("%s is still under the old DEK", kv.Key)
		}
	}
	l.records()
}

// TestProblems has values that cannot be changed: each is named and left, the others are
// done.
func TestProblems(t *testing.T) {
	l := newLab(t)
	l.fill(30)
	large := strings.Repeat("x", 1536*1024-90)
	l.put(prefix+"ns/00010a", large)
	l.put(prefix+"ns/00011a", "\x00es\x01 cut off")
	p := l.process()
	result, err := l.engine(p, true).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]error{}
	for _, problem := range result.Problems {
		named[string(problem.Key)] = problem.Err
		if strings.Contains(problem.Err.Error(), "xxx") {
			t.Errorf("an error has a value in it: %v", problem.Err)
		}
	}
	if result.Changed != 30 || result.Clean() || len(named) != 2 {
		t.Errorf("%d changed, problems %v", result.Changed, named)
	}
	contains(t, named[prefix+"ns/00010a"], "request limit")
	if !errors.Is(named[prefix+"ns/00011a"], envelope.ErrTruncated) {
		t.Errorf("the value that is cut off: %v", named[prefix+"ns/00011a"])
	}
	if answer, err := l.client.Get(t.Context(), prefix+"ns/00010a"); err != nil || string(answer.Kvs[0].Value) != large {
		t.Error("the large value was changed")
	}

	// Sealed plaintext that looks sealed itself, and an envelope that was moved.
	key, err := p.sealer.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.put(prefix+"ns/00012a", string(key.Seal(nil, []byte(prefix+"ns/00012a"), []byte("\x00es!"))))
	l.put(prefix+"ns/00013a", string(key.Seal(nil, []byte("elsewhere"), []byte("moved"))))
	result, err = l.engine(p, false).Run(t.Context(), migrate.Job{Kind: migrate.Decrypt})
	if err != nil || result.Changed != 30 || len(result.Problems) != 3 {
		t.Errorf("decrypt: %d changed, %v, %v", result.Changed, result.Problems, err)
	}
	contains(t, result.Problems[1].Err, "begins as an envelope")
	if !errors.Is(result.Problems[2].Err, envelope.ErrAuthentication) {
		t.Error(result.Problems[2].Err)
	}
}

// TestRecordGone deletes the record before a transaction: it is put back before anything
// is written.
func TestRecordGone(t *testing.T) {
	l := newLab(t)
	want := l.fill(400)
	p := l.process()
	kv := &hooked{KV: l.client, before: func(n int) error {
		if n == 2 || n == 4 {
			_, err := l.client.Delete(t.Context(), "/etcdseal/", clientv3.WithPrefix())
			return err
		}
		return nil
	}}
	done := l.run(l.engine(p, true, func(c *migrate.Config) { c.KV = kv }), migrate.Job{Kind: migrate.Encrypt})
	if done.Changed != 400 {
		t.Errorf("%+v", done)
	}
	l.records()
	if got, sealed := l.values(l.process()); sealed != 400 || !cmp.Equal(want, got) {
		t.Errorf("%d are sealed", sealed)
	}
}

// TestChanged changes keys between the reading and the writing.
func TestChanged(t *testing.T) {
	l := newLab(t)
	want := l.fill(250)
	p := l.process()
	busy := prefix + "ns/00007"
	kv := &hooked{KV: l.client}
	kv.before = func(n int) error {
		if n > 20 {
			return nil
		}
		want[busy] = fmt.Sprint("new ", n)
		l.put(busy, want[busy])
		if n == 1 {
			delete(want, prefix+"ns/00008")
			_, err := l.client.Delete(t.Context(), prefix+"ns/00008")
			return err
		}
		return nil
	}
	done := l.run(l.engine(p, true, func(c *migrate.Config) { c.KV = kv }), migrate.Job{Kind: migrate.Encrypt})
	if done.Left != 0 || done.Retried == 0 {
		t.Errorf("%+v", done)
	}
	got, sealed := l.values(p)
	if diff := cmp.Diff(want, got); diff != "" || sealed != 249 {
		t.Errorf("%d values are sealed, and (-want +got):\n%s", sealed, diff)
	}
}

// TestUnfinished has somebody who writes plaintext for ever.
func TestUnfinished(t *testing.T) {
	l := newLab(t)
	l.fill(3)
	kv := &hooked{KV: l.client, after: func(int) error { l.put(prefix+"ns/00001", "plain again"); return nil }}
	_, err := l.engine(l.process(), true, func(c *migrate.Config) { c.KV, c.MaxPasses = kv, 3 }).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	if !errors.Is(err, migrate.ErrUnfinished) {
		t.Error(err)
	}
}

// TestCompacted compacts the revision that a pass reads at. There are more keys than are
// looked ahead.
func TestCompacted(t *testing.T) {
	l := newLab(t)
	want := l.fill(1000)
	p := l.process()
	kv := &hooked{KV: l.client, after: func(int) error {
		answer, err := l.client.Get(t.Context(), "any")
		if err == nil {
			_, err = l.client.Compact(t.Context(), answer.Header.Revision)
		}
		if errors.Is(err, rpctypes.ErrCompacted) { // after another transaction
			return nil
		}
		return err
	}}
	done := l.run(l.engine(p, true, func(c *migrate.Config) { c.KV = kv }), migrate.Job{Kind: migrate.Encrypt})
	if got, sealed := l.values(p); done.Changed != 1000 || sealed != 1000 || !cmp.Equal(want, got) {
		t.Errorf("%d are sealed: %+v", sealed, done)
	}
}

// filling is an etcd whose database is as large as a test says.
type filling struct {
	clientv3.Maintenance
	answers []*clientv3.StatusResponse // the last one is for ever
}

func (f *filling) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	answer := f.answers[0]
	if len(f.answers) > 1 {
		f.answers = f.answers[1:]
	}
	return answer, nil
}

func (f *filling) AlarmList(context.Context) (*clientv3.AlarmResponse, error) {
	return (*clientv3.AlarmResponse)(&pb.AlarmResponse{}), nil
}

func TestQuota(t *testing.T) {
	l := newLab(t)
	for i := range 20 {
		l.put(fmt.Sprintf("%s%02d", prefix, i), strings.Repeat("x", 1<<20))
	}
	with := func(sizes ...int64) func(*migrate.Config) {
		f := &filling{}
		for _, size := range sizes {
			f.answers = append(f.answers, &clientv3.StatusResponse{DbSize: size, DbSizeInUse: size, DbSizeQuota: 1 << 30})
		}
		return func(c *migrate.Config) { c.Maintenance = f }
	}
	result, err := l.engine(l.process(), true, with(1<<29, 1020<<20)).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	if !errors.Is(err, migrate.ErrQuota) || result.Changed == 0 || result.Changed == 20 {
		t.Errorf("%d changed, %v", result.Changed, err)
	}
	dry, err := l.engine(l.process(), true, with(1020<<20)).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt, DryRun: true})
	if err != nil || dry.Estimate.Fits() {
		t.Errorf("%+v, %v", dry.Estimate, err)
	}
	kv := &hooked{KV: l.client, before: func(int) error { return rpctypes.ErrNoSpace }}
	if _, err = l.engine(l.process(), true, func(c *migrate.Config) { c.KV = kv }).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt}); !errors.Is(err, migrate.ErrQuota) {
		t.Error(err)
	}
	// Running again when there is room goes on. Of what is stopped, an answer may be lost.
	_, sealed := l.values(l.process())
	if rest := l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt}); rest.Changed != int64(20-sealed) || result.Changed > int64(sealed) {
		t.Errorf("%d changed, %d are sealed, then %d", result.Changed, sealed, rest.Changed)
	}
}

// TestKEKLost has a KEK that does not answer, which stops a run, and one that says no,
// which is about each value. What was not done is done by the next run.
func TestKEKLost(t *testing.T) {
	l := newLab(t)
	l.fill(120)
	impatient := func(c *migrate.Config) { c.Patience = time.Nanosecond }
	away := l.process()
	away.kek.Fail(kek.Unavailable)
	result, err := l.engine(away, true, impatient).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt})
	if kek.ClassOf(err) != kek.Unavailable || result.Changed != 0 || len(result.Problems) != 0 {
		t.Errorf("sealing without an answer: %+v, %v", result, err)
	}
	denied := l.process()
	denied.kek.Fail(kek.Denied)
	if result, err = l.engine(denied, true).Run(t.Context(), migrate.Job{Kind: migrate.Encrypt}); kek.ClassOf(err) != kek.Denied || result.Changed != 0 {
		t.Errorf("sealing denied: %+v, %v", result, err)
	}
	l.run(l.engine(l.process(), true), migrate.Job{Kind: migrate.Encrypt})

	if result, err = l.engine(away, false, impatient).Run(t.Context(), migrate.Job{Kind: migrate.Decrypt}); kek.ClassOf(err) != kek.Unavailable || result.Changed != 0 {
		t.Errorf("opening without an answer: %+v, %v", result, err)
	}
	result, err = l.engine(denied, false).Run(t.Context(), migrate.Job{Kind: migrate.Decrypt})
	if err != nil || len(result.Problems) != 120 || result.Clean() {
		t.Errorf("opening denied: %d problems, %v", len(result.Problems), err)
	}
	if back := l.run(l.engine(l.process(), false), migrate.Job{Kind: migrate.Decrypt}); back.Changed != 120 {
		t.Errorf("%+v", back)
	}
}
