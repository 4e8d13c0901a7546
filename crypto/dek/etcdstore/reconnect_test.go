package etcdstore_test

import (
	"testing"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/dek/dektest"
)

// TestReconnect has a Store give its connections up: calls and the watch go on by others.
func TestReconnect(t *testing.T) {
	s := newServer(t)
	store := s.dial("/etcdseal/")
	data := dektest.Record(dektest.ID(1), 1)
	if _, err := store.Create(t.Context(), dektest.ID(1), data); err != nil {
		t.Fatal(err)
	}
	changes, ended := make(chan dek.Change, 1), make(chan error, 1)
	go func() { ended <- store.Watch(t.Context(), nil, func(c dek.Change) { changes <- c }) }()
	<-changes // everything, which is read; the watch itself may not be there yet
	if _, err := store.Create(t.Context(), dektest.ID(2), dektest.Record(dektest.ID(2), 1)); err != nil {
		t.Fatal(err)
	}
	<-changes // by the watch
	store.(dek.Reconnecter).Reconnect()
	if err := <-ended; err == nil {
		t.Error("the watch ended without an error, so that nobody would begin it again")
	}
	if got, err := store.Get(t.Context(), dektest.ID(1)); err != nil || string(got.Data) != string(data) {
		t.Errorf("Get: got %q, %v", got.Data, err)
	}
}
