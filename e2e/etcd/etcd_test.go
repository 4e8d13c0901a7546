package etcd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdseal/etcdseal/e2e/binaries"
	"github.com/etcdseal/etcdseal/e2e/pki"
)

const prefix = "/etcdseal/"

// TestChecks plants records and envelopes by hand: the checks that all other
// tests rely on must see what is wrong, at the revision where it was wrong.
func TestChecks(t *testing.T) {
	server := start(t, nil)
	client := server.Client(t)
	put(t, client, prefix+"one", record('a'))
	put(t, client, "/k1", envelope('a'))
	put(t, client, "/k2", envelope('b')) // without a record
	put(t, client, prefix+"two", record('b'))
	put(t, client, prefix+"one", `{"id":"`+id('a')+`"}`) // a tombstone
	last := put(t, client, "/k3", "plain")

	envelopes, err := CheckDEKs(t, client, prefix)
	if want := "value of /k1"; envelopes != 2 || strings.Count(fmt.Sprint(err), "no record") != 1 || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("CheckDEKs = %d, %v; want 2 and an error about %s", envelopes, err, want)
	}
	envelopes, err = CheckHistory(t, client, prefix, last-4)
	if want := "value of /k2"; envelopes != 2 || strings.Count(fmt.Sprint(err), "no record") != 1 || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("CheckHistory = %d, %v; want 2 and an error about %s", envelopes, err, want)
	}
	if keyring := ReadKeyring(t, client, prefix); len(keyring) != 1 || keyring[id('b')] != prefix+"two" {
		t.Errorf("ReadKeyring = %v, want the record of b", keyring)
	}
}

// TestRestore restores a snapshot both ways and looks at what is there.
func TestRestore(t *testing.T) {
	for _, tt := range []struct {
		name string
		bump int64
		args []string
	}{
		{"same cluster", 0, nil},
		{"another cluster", 1000, []string{"--initial-cluster-token=another", "--bump-revision=1000", "--mark-compacted"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := start(t, pki.NewAuthority(t, "etcd authority"))
			client := server.Client(t)
			last := put(t, client, "/kept", "kept")
			was, err := client.Get(context.Background(), "/kept")
			if err != nil {
				t.Fatal(err)
			}
			snapshot := server.SaveSnapshot(t)
			put(t, client, "/lost", "lost")
			server.Restore(t, snapshot, tt.args...)
			is, err := server.Client(t).Get(context.Background(), "/", clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			if len(is.Kvs) != 1 || is.Header.Revision != last+tt.bump {
				t.Errorf("restored %d keys at revision %d, want 1 at %d", len(is.Kvs), is.Header.Revision, last+tt.bump)
			}
			if same := is.Header.ClusterId == was.Header.ClusterId; same != (tt.bump == 0) {
				t.Errorf("restored cluster has the same id: %v", same)
			}
			if _, holds := server.DataHolds(t, "kept"); !holds {
				t.Error("the data folder does not hold the value that was kept")
			}
			if _, err := CheckHistory(t, server.Client(t), prefix, last+tt.bump+1); err != nil {
				t.Errorf("CheckHistory: %v", err)
			}
		})
	}
}

func start(t *testing.T, authority *pki.Authority) *Server {
	t.Helper()
	folder, err := binaries.Build(t.Context(), os.Stderr, binaries.Etcd, binaries.Etcdctl, binaries.Etcdutl)
	if err != nil {
		t.Fatal(err)
	}
	return Start(t, Config{Binaries: folder, Authority: authority})
}

func put(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	response, err := client.Put(t.Context(), key, value)
	if err != nil {
		t.Fatalf("putting %s: %v", key, err)
	}
	return response.Header.Revision
}

// id is the id of the DEK that the letter stands for.
func id(letter byte) string { return fmt.Sprintf("%x", strings.Repeat(string(letter), 16)) }

func record(letter byte) string { return `{"id":"` + id(letter) + `","wrappings":[{}]}` }

func envelope(letter byte) string {
	return "\x00es\x01" + strings.Repeat(string(letter), 16) + strings.Repeat("x", 28)
}
