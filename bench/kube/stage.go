package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcdseal/etcdseal/bench/child"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// stage is where the sides take turns. It is used by one goroutine.
type stage struct {
	cfg   Config
	sides []*side
	files files
	certs rig.Certificates
}

// files are what all sides have in common.
type files struct {
	tokens   string // bearer tokens
	accounts string // the key for service account tokens
}

// start starts the sides one after the other and freezes each, so that none disturbs the next. close must be called even after an error.
func (st *stage) start(ctx context.Context) error {
	var err error
	if st.certs, err = rig.NewCertificates(st.cfg.Dir); err != nil {
		return err
	}
	if err := st.writeFiles(); err != nil {
		return err
	}
	for _, s := range []*side{
		{name: SideAlone, dir: "alone", holds: protobufMagic},
		{name: SideKMS, dir: "kms", holds: kmsPrefix},
		{name: SideSeal, dir: "seal", holds: envelopeMagic},
		{name: SideTLS, dir: "sealtls", holds: envelopeMagic},
	} {
		if s.name == SideTLS && !st.cfg.Calls {
			continue
		}
		fmt.Fprintf(st.cfg.Progress, "starting a kube-apiserver: %s\n", s.name)
		s.stage, s.dir = st, filepath.Join(st.cfg.Dir, s.dir)
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			return fmt.Errorf("making a directory for %s: %w", s.name, err)
		}
		st.sides = append(st.sides, s)
		if err := s.start(ctx); err != nil {
			return fmt.Errorf("starting the side %q: %w", s.name, err)
		}
		if err := s.freeze(); err != nil {
			return err
		}
	}
	return nil
}

// side is that of the name.
func (st *stage) side(name string) *side {
	for _, s := range st.sides {
		if s.name == name {
			return s
		}
	}
	panic("kube: there is no side " + name)
}

// onTurn thaws a side, does something with it, and freezes it again.
func (st *stage) onTurn(ctx context.Context, s *side, do func(context.Context, *side) error) error {
	if err := s.thaw(ctx); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err := do(ctx, s); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return s.freeze()
}

// inTurn does something with each side, beginning with another one in each round.
func (st *stage) inTurn(ctx context.Context, round int, do func(context.Context, *side) error) error {
	for i := range st.sides {
		if err := st.onTurn(ctx, st.sides[(i+round)%len(st.sides)], do); err != nil {
			return err
		}
	}
	return nil
}

// end ends a side for good; one that was never started is no error.
func (st *stage) end(name string) error {
	i := slices.IndexFunc(st.sides, func(s *side) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	s := st.sides[i]
	st.sides = slices.Delete(st.sides, i, i+1)
	return s.close()
}

// close ends every process, frozen or not.
func (st *stage) close() error {
	var errs []error
	for _, s := range st.sides {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

func (st *stage) writeFiles() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making service account key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding service account key: %w", err)
	}
	st.files = files{tokens: filepath.Join(st.cfg.Dir, "tokens.csv"), accounts: filepath.Join(st.cfg.Dir, "accounts.pem")}
	for path, data := range map[string][]byte{
		st.files.tokens:   []byte(token + ",admin,1,\"system:masters\"\n"),
		st.files.accounts: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("writing a file for kube-apiserver: %w", err)
		}
	}
	return nil
}

// launch starts a program; its log is in dir.
func launch(dir, name, path string, args ...string) (*child.Process, error) {
	return child.Start(child.Config{Name: name, Path: path, Args: args, LogDir: dir})
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
