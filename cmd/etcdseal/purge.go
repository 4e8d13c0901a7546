package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/etcdseal/etcdseal/migrate"
)

// purge compacts and defragments, and returns the exit status.
func (t *etcdTool) purge(ctx context.Context, yes bool, output string, s streams) int {
	if !yes {
		if !confirm(s, "Compact at the current revision, which ends all watches that are behind, and defragment member by member?") {
			return fail(s, errDeclined)
		}
	}
	rules, err := t.migrateRules()
	if err != nil {
		return fail(s, err)
	}
	engine, err := migrate.New(migrate.Config{
		KV: t.client, Maintenance: t.client, Endpoints: t.config.Etcd.Endpoints, Keyring: t.keyring, Store: t.store, Rules: rules,
	})
	if err != nil {
		return fail(s, err)
	}
	purged, err := engine.Purge(ctx, t.client)
	if purged != nil {
		if err := printPurged(s, purged, output); err != nil {
			return fail(s, err)
		}
	}
	if err != nil {
		fmt.Fprintf(s.err, "etcdseal: %v\n", err)
		return exitFound
	}
	return exitDone
}

func printPurged(s streams, p *migrate.Purged, output string) error {
	if output == "json" {
		type member struct {
			Endpoint string `json:"endpoint"`
			ID       string `json:"id"`
			Leader   bool   `json:"leader"`
			Before   int64  `json:"bytesBefore"`
			After    int64  `json:"bytesAfter"`
		}
		j := struct {
			Compacted int64    `json:"compactedRevision"`
			Members   []member `json:"members"`
		}{Compacted: p.Revision}
		for _, m := range p.Members {
			j.Members = append(j.Members, member{m.Endpoint, fmt.Sprintf("%x", m.ID), m.Leader, m.Before, m.After})
		}
		return json.NewEncoder(s.out).Encode(j)
	}
	fmt.Fprintf(s.out, "purge: compacted at revision %d\n", p.Revision)
	for _, m := range p.Members {
		if m.Err == nil {
			fmt.Fprintf(s.out, "  %s: %d bytes before, %d after\n", m.Endpoint, m.Before, m.After)
		}
	}
	return nil
}
