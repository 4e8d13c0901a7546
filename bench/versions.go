package main

import (
	"context"

	"github.com/etcdseal/etcdseal/bench/report"
	"github.com/etcdseal/etcdseal/bench/rig"
)

// versionsOf are those of the programs that are measured.
func versionsOf(ctx context.Context, bin rig.Binaries, o options) ([]report.Version, error) {
	etcd, err := bin.EtcdVersion(ctx)
	if err != nil {
		return nil, err
	}
	versions := []report.Version{{Name: "etcd", Version: etcd}}
	for _, seal := range []struct {
		name, path string
		built      bool
	}{{rig.Sealing, bin.Etcdseal, o.build.Etcdseal == ""}, {rig.Earlier, bin.Earlier, false}} {
		if seal.path == "" {
			continue
		}
		version, err := rig.SealVersion(ctx, seal.path, seal.built)
		if err != nil {
			return nil, err
		}
		versions = append(versions, report.Version{Name: seal.name, Version: version})
	}
	return versions, nil
}
