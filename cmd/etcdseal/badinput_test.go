package main

import (
	"context"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/crypto/dek"
)

// recordPrefix is where the keyrings of the scripts keep their records.
const recordPrefix = "/etcdseal/"

// edits are what somebody may do by hand to a keyring of two records.
var edits = map[string]func(records []*dek.Record){
	"swap": func(records []*dek.Record) {
		records[0].Wrappings, records[1].Wrappings = records[1].Wrappings, records[0].Wrappings
	},
	"garble": func(records []*dek.Record) {
		for _, r := range records {
			r.Wrappings[0].Ciphertext[20] ^= 1
		}
	},
	"misname": func(records []*dek.Record) {
		for _, r := range records {
			r.Wrappings[0].Version = strings.Repeat("0", 32)
		}
	},
	"rename": func(records []*dek.Record) {
		for _, r := range records {
			r.Keyring = "another"
		}
	},
}

// editRecords edits the records in etcd by hand, or with "restore" undoes that; "cut"
// leaves a half of each.
func (l *lab) editRecords(ts *testscript.TestScript, args []string) {
	l.call(ts, l.etcd, func(ctx context.Context, client *clientv3.Client) error {
		if args[0] == "restore" {
			for key, value := range l.records {
				if _, err := client.Put(ctx, key, value); err != nil {
					return err
				}
			}
			return nil
		}
		found, err := client.Get(ctx, recordPrefix, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		l.records = map[string]string{}
		var keys []string
		var records []*dek.Record
		for _, kv := range found.Kvs {
			record, err := dek.ParseRecord(kv.Value)
			if err != nil {
				continue // something else of the keyring's
			}
			l.records[string(kv.Key)] = string(kv.Value)
			keys, records = append(keys, string(kv.Key)), append(records, record)
		}
		if len(records) != 2 {
			ts.Fatalf("%d records, want 2", len(records))
		}
		if edit := edits[args[0]]; edit != nil {
			edit(records)
		} else if args[0] != "cut" {
			ts.Fatalf("records cannot be edited by %s", args[0])
		}
		for i, key := range keys {
			value, err := records[i].Marshal()
			if err != nil {
				return err
			}
			if args[0] == "cut" {
				value = value[:len(value)/2]
			}
			if _, err := client.Put(ctx, key, string(value)); err != nil {
				return err
			}
		}
		return nil
	})
}
