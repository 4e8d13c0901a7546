package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdseal/etcdseal/bench/report"
)

const (
	// storedLimit is the limit of etcdseal's bytes beyond the plaintext over KMS v2's.
	storedLimit = 0.2
	// rsaPrefix is the part of etcd that a kube-apiserver with an RSA key uses for a moment.
	rsaPrefix = "/rsa"
	// partSize is the length of the part of a value by which it is recognised.
	partSize = 64
)

// measureStored looks at what etcd holds for every secret: that it is what the side is said to store, and how long it is. The plaintext's length is that of
// the same secret on the side without encryption, which has the same name, the same size of value, and metadata of the same length.
func measureStored(ctx context.Context, st *stage, rep *report.Report) error {
	fmt.Fprintln(st.cfg.Progress, "looking at what etcd holds")
	overhead := make(map[string][]float64)
	plain := make(map[string]int)
	total := max(st.side(SideAlone).secrets, perNamespace)
	for _, name := range sideNames {
		err := st.onTurn(ctx, st.side(name), func(ctx context.Context, s *side) error {
			if err := s.fill(ctx, total); err != nil {
				return err
			}
			lengths, err := s.check(ctx, total)
			if err != nil {
				return err
			}
			if s.name == SideAlone {
				plain = lengths
				return nil
			}
			for key, n := range lengths {
				without, ok := plain[key]
				if !ok {
					return fmt.Errorf("%s is not held without encryption", key)
				}
				overhead[s.name] = append(overhead[s.name], float64(n-without))
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("checking what is stored: %w", err)
		}
	}
	rsa, err := st.rsaOverhead(ctx, plain[probe.key()])
	if err != nil {
		return fmt.Errorf("checking what is stored with an RSA key: %w", err)
	}
	addStored(rep, overhead[SideKMS], overhead[SideSeal], rsa)
	return nil
}

// addStored makes the rows and the figure. KMS v2 repeats the wrapped seed and the key's id in every value, so that its length depends on the KMS: with an
// AES key in a file it is as short as it gets, with an RSA key of 2048 bits and a key id of 64 characters it is what a Key Vault makes of it.
func addStored(rep *report.Report, kms, seal []float64, rsa float64) {
	const name, metric = "kube bytes stored", "beyond the plaintext"
	rep.Add(name, SideKMS+", AES-256 key", report.Sampled(metric, "B", kms))
	rep.Add(name, SideKMS+", RSA-2048 key", report.Single(metric, "B", rsa))
	rep.Add(name, SideSeal, report.Sampled(metric, "B", seal))
	mine := report.SpreadOf(seal).Max
	rep.Add(name, SideSeal, report.Single("over KMS v2, AES-256 key", "", mine/report.SpreadOf(kms).Median), report.Single("over KMS v2, RSA-2048 key", "", mine/rsa))
	for _, over := range []struct {
		key   string
		bytes float64
	}{{"RSA-2048", rsa}, {"AES-256", report.SpreadOf(kms).Median}} {
		rep.AddFigure("kube: bytes beyond the plaintext, etcdseal over KMS v2 with an "+over.key+" key", mine/over.bytes, "", report.AtMost, storedLimit)
	}
}

// check proves that etcd holds what the side is said to store, and that kube-apiserver gives out what was written. It returns the lengths of all values
// by their keys.
func (s *side) check(ctx context.Context, total int) (map[string]int, error) {
	s.probes++
	written := value(s.probes)
	if err := s.client.do(ctx, updateOf(probe, s.probes)); err != nil {
		return nil, err
	}
	answer, err := s.client.read(ctx, getOf(probe))
	if err != nil {
		return nil, err
	}
	got, err := decodeSecretValue(answer)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(got, written) {
		return nil, errors.New("kube-apiserver gives out something else than was written")
	}
	lengths := make(map[string]int)
	err = s.eachStored(ctx, secretsPrefix, func(key string, value []byte) error {
		if !isSecret(key) {
			return nil
		}
		lengths[key] = len(value)
		return checkValue(key, value, s.holds, key == probe.key(), written)
	})
	if err == nil && len(lengths) != total+1 {
		err = fmt.Errorf("etcd holds %d secrets, want %d", len(lengths), total+1)
	}
	return lengths, err
}

// checkValue compares a stored value with how it has to begin. Of the one that is known, its plaintext must be there if it is not to be encrypted, and no
// part of it otherwise.
func checkValue(key string, stored []byte, holds string, known bool, plaintext []byte) error {
	if !bytes.HasPrefix(stored, []byte(holds)) {
		return fmt.Errorf("%s does not begin with %q in etcd", key, holds)
	}
	if !known {
		return nil
	}
	if holds == protobufMagic {
		if !bytes.Contains(stored, plaintext) {
			return fmt.Errorf("%s is not in etcd as it was written", key)
		}
		return nil
	}
	for from := 0; from+partSize <= len(plaintext); from += partSize {
		if bytes.Contains(stored, plaintext[from:from+partSize]) {
			return fmt.Errorf("%s is readable in etcd", key)
		}
	}
	return nil
}

// rsaOverhead has a further kube-apiserver, with a plugin that has an RSA key, write the probe once, and returns by how much that is longer than plaintext.
func (st *stage) rsaOverhead(ctx context.Context, plain int) (overhead float64, err error) {
	base := st.side(SideKMS)
	dir := filepath.Join(base.dir, "rsa")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, fmt.Errorf("making a directory: %w", err)
	}
	s := &side{stage: st, name: SideKMS, dir: dir, etcdAddress: base.etcdAddress, storage: base.storage}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.startPlugin(newRSAKey); err != nil {
		return 0, err
	}
	err = st.onTurn(ctx, base, func(ctx context.Context, _ *side) error {
		if err := s.startServer(ctx, "--etcd-prefix="+rsaPrefix); err != nil {
			return err
		}
		if err := s.prepare(ctx); err != nil {
			return err
		}
		key := rsaPrefix + probe.key()[len("/registry"):]
		held, err := pb.NewKVClient(base.direct).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
		if err != nil {
			return fmt.Errorf("reading etcd: %w", err)
		}
		if len(held.Kvs) != 1 {
			return fmt.Errorf("etcd holds %d values for %s, want 1", len(held.Kvs), key)
		}
		overhead = float64(len(held.Kvs[0].Value) - plain)
		return checkValue(key, held.Kvs[0].Value, kmsPrefix, true, value(0))
	})
	return overhead, err
}
