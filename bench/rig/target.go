package rig

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"google.golang.org/grpc"

	"github.com/etcdseal/etcdseal/bench/child"
)

// The names of what can stand between a client and etcd, in the order of the report.
const (
	Direct     = "direct"
	TCPCopy    = "tcpcopy"
	NoRule     = "etcdseal-norule" // etcdseal, keys under no rule
	Sealing    = "etcdseal"        // etcdseal, keys under a rule
	GRPCProxy  = "grpcproxy"       // etcd's own
	DirectTLS  = "direct-tls"      // with client certificates, as all of these
	TCPCopyTLS = "tcpcopy-tls"     // copies the encrypted bytes
	SealingTLS = "etcdseal-tls"    // on both legs

	EarlierNoRule = "etcdseal-earlier-norule" // another binary, to tell what a change has done
	Earlier       = "etcdseal-earlier"
	EarlierTLS    = "etcdseal-earlier-tls"
)

// TargetNames are all that a run has by itself, EarlierNames those that need another binary of etcdseal.
var (
	TargetNames  = []string{Direct, TCPCopy, NoRule, Sealing, GRPCProxy, DirectTLS, TCPCopyTLS, SealingTLS}
	EarlierNames = []string{EarlierNoRule, Earlier, EarlierTLS}
)

// EarlierOf are the targets of the earlier etcdseal by those of the one that is measured.
var EarlierOf = map[string]string{NoRule: EarlierNoRule, Sealing: Earlier, SealingTLS: EarlierTLS}

// WithEarlier puts the earlier etcdseal's targets behind those that they are compared with.
func WithEarlier(names []string) []string {
	var all []string
	for _, name := range names {
		all = append(all, name)
		if earlier, ok := EarlierOf[name]; ok {
			all = append(all, earlier)
		}
	}
	return all
}

// IsEarlier says whether a target of this name is the earlier etcdseal.
func IsEarlier(name string) bool { return strings.HasPrefix(name, Earlier) }

// sharing are the targets that one process serves without TLS, with and without a matching rule.
var sharing = map[string]string{NoRule: Sealing, Sealing: Sealing, EarlierNoRule: Earlier, Earlier: Earlier}

// IsSeal says whether a target of this name is an etcdseal.
func IsSeal(name string) bool { return strings.HasPrefix(name, Sealing) }

// Secured says whether a target of this name is reached with TLS.
func Secured(name string) bool { return strings.HasSuffix(name, "-tls") }

// Baselines are the targets that one of this name is compared with: etcd itself and a TCP copy, by the same means of transport.
func Baselines(name string) (direct, tcpcopy string) {
	if Secured(name) {
		return DirectTLS, TCPCopyTLS
	}
	return Direct, TCPCopy
}

// Target is one way to etcd.
type Target struct {
	Name    string
	Process *child.Process // what stands in between; nil where nothing does
	Address string         // host:port
	TLS     *tls.Config    // nil for plain text
	Sealed  bool           // whether its keys lie under the rule of an etcdseal
}

// Dial are the options of a client.
func (t *Target) Dial() []grpc.DialOption { return DialOptions(t.TLS) }

// Prefix is where the target's keys lie. It is of the same length for all targets with the same number.
func (t *Target) Prefix(number int) string {
	if t.Sealed {
		return fmt.Sprintf("%s%02d/", SealedPrefix, number)
	}
	return fmt.Sprintf("%s%02d/", PlainPrefix, number)
}

// Targets starts what each name needs and waits until all serve. etcdseal runs once without TLS, for the targets with and without a matching rule.
func (r *Rig) Targets(ctx context.Context, names []string) ([]*Target, error) {
	var targets []*Target
	for _, name := range names {
		t, err := r.share(targets, name)
		if t == nil && err == nil {
			t, err = r.Target(ctx, name, "", r.Upstream(Secured(name)))
		}
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// share makes a target of another one's etcdseal; nil if there is none.
func (r *Rig) share(targets []*Target, name string) (*Target, error) {
	for _, t := range targets {
		if served, ok := sharing[name]; ok && served == sharing[t.Name] {
			return &Target{Name: name, Process: t.Process, Address: t.Address, Sealed: sealed(name)}, t.Process.Err()
		}
	}
	return nil, nil
}

func sealed(name string) bool { return IsSeal(name) && name != NoRule && name != EarlierNoRule }

// Target starts one target in front of an address at which etcd is reached, and waits until it serves. The suffix tells its files from those of
// others with that name.
func (r *Rig) Target(ctx context.Context, name, suffix, upstream string) (*Target, error) {
	t := &Target{Name: name, Address: upstream, TLS: r.ClientTLS(Secured(name)), Sealed: sealed(name)}
	file := name + suffix
	var err error
	switch name {
	case Direct, DirectTLS:
	case TCPCopy, TCPCopyTLS:
		err = r.listen(t, child.Config{Name: file, Path: r.Binaries.Self}, func(address string) []string { return []string{"tcpcopy", address, upstream} })
	case GRPCProxy:
		err = r.listen(t, child.Config{Name: file, Path: r.Binaries.Etcd}, func(address string) []string {
			return []string{"grpc-proxy", "start", "--endpoints=http://" + upstream, "--listen-addr=" + address, "--data-dir=" + r.Dir + "/" + file}
		})
	default:
		var s *Seal
		if s, err = r.sealInFrontOf(ctx, r.sealBinary(name), file, upstream, Secured(name)); err == nil {
			t.Process, t.Address = s.Process, s.Address
		}
	}
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(t.Address, t.Dial()...)
	if err != nil {
		return nil, fmt.Errorf("making client of %s: %w", name, err)
	}
	defer conn.Close()
	if err := serving(ctx, t.Process, conn); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return t, nil
}

// sealBinary is the etcdseal of a target.
func (r *Rig) sealBinary(name string) string {
	if IsEarlier(name) {
		return r.Binaries.Earlier
	}
	return r.Binaries.Etcdseal
}

// listen starts a program with the arguments for a free address.
func (r *Rig) listen(t *Target, cfg child.Config, args func(address string) []string) (err error) {
	if t.Address, err = freeAddress(); err != nil {
		return err
	}
	cfg.Args = args(t.Address)
	t.Process, err = r.start(cfg)
	return err
}
