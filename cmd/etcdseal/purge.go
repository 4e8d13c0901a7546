package main

import (
	"fmt"
	"io"

	"github.com/etcdseal/etcdseal/migrate"
)

const purgeQuestion = "Compact at the current revision, which ends all watches that are behind, and defragment member by member?"

// purgeJSON is what -o json prints of a purge.
type purgeJSON struct {
	Compacted int64              `json:"compactedRevision,omitempty"`
	Members   []purgedMemberJSON `json:"members"`
	Error     string             `json:"error,omitempty"`
}

type purgedMemberJSON struct {
	Endpoint string `json:"endpoint"`
	ID       string `json:"id"`
	Leader   bool   `json:"leader"`
	Before   int64  `json:"bytesBefore"`
	After    int64  `json:"bytesAfter"`
	Error    string `json:"error,omitempty"`
}

func purgedJSON(o outcome) *purgeJSON {
	if o.purged == nil && o.purgeErr == nil {
		return nil
	}
	j := &purgeJSON{Members: []purgedMemberJSON{}, Error: text(o.purgeErr)}
	if o.purged == nil {
		return j
	}
	j.Compacted = o.purged.Revision
	for _, m := range o.purged.Members {
		j.Members = append(j.Members, purgedMemberJSON{m.Endpoint, fmt.Sprintf("%x", m.ID), m.Leader, m.Before, m.After, text(m.Err)})
	}
	return j
}

// printPurged says what a purge did, if there was one.
func printPurged(to io.Writer, p *migrate.Purged) {
	if p == nil {
		return
	}
	fmt.Fprintf(to, "purge: compacted at revision %d\n", p.Revision)
	for _, m := range p.Members {
		if m.Err == nil {
			fmt.Fprintf(to, "  %s: %d bytes before, %d after\n", m.Endpoint, m.Before, m.After)
		}
	}
	fmt.Fprintln(to, "  the write-ahead log goes on to hold what was written: `etcdseal verify --data-dir` says where, and for how long")
}
