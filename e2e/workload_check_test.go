package e2e

import (
	"bytes"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
)

// happening is what a watch must tell of one secret.
type happening struct {
	Type  string
	Value string
}

// checkWatch reads the watch up to a deletion and compares it with history.
func (w *workload) checkWatch(t *testing.T, watch *apiserver.Watch, history []happening) {
	t.Helper()
	var seen []happening
	for len(seen) == 0 || seen[len(seen)-1].Type != "DELETED" {
		event, err := watch.Next()
		if err != nil {
			t.Fatalf("reading watch after %d events: %v", len(seen), err)
		}
		object, err := event.Secret()
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, happening{event.Type, string(object.Data["value"])})
	}
	if !cmp.Equal(history, seen) {
		t.Errorf("watch saw %d events %v, want %d %v (or values differ)",
			len(seen), eventTypes(seen), len(history), eventTypes(history))
	}
}

func eventTypes(history []happening) []string {
	var types []string
	for _, h := range history {
		types = append(types, h.Type)
	}
	return types
}

// checkLists lists at once, in pages, and in pages of an exact version.
func (w *workload) checkLists(t *testing.T) {
	t.Helper()
	all, _, err := w.api.List(call(t), w.path(), 0, nil)
	if err != nil {
		t.Fatalf("listing secrets: %v", err)
	}
	w.checkItems(t, "list", all.Items)
	exact := url.Values{
		"resourceVersion":      {all.Metadata.ResourceVersion},
		"resourceVersionMatch": {"Exact"},
	}
	for label, query := range map[string]url.Values{"pages": nil, "pages of an exact version": exact} {
		paged, pages, err := w.api.List(call(t), w.path(), pageSize, query)
		if err != nil {
			t.Fatalf("listing %s: %v", label, err)
		}
		if want := (len(w.secrets) + pageSize - 1) / pageSize; pages != want {
			t.Errorf("%s: %d pages, want %d", label, pages, want)
		}
		w.checkItems(t, label, paged.Items)
	}
}

// check reads every secret by name and by list, and every config map.
func (w *workload) check(t *testing.T) {
	t.Helper()
	for name, want := range w.secrets {
		object, err := w.api.Get(call(t), w.path(), name)
		if err != nil {
			t.Errorf("reading secret %s: %v", name, err)
			continue
		}
		w.checkValue(t, name, object.Data["value"], want)
	}
	all, _, err := w.api.List(call(t), w.path(), 0, nil)
	if err != nil {
		t.Fatalf("listing secrets: %v", err)
	}
	w.checkItems(t, "list", all.Items)
	for name, want := range w.configMaps {
		object, err := w.api.Get(call(t), apiserver.ConfigMaps(w.namespace), name)
		if err != nil {
			t.Errorf("reading config map %s: %v", name, err)
			continue
		}
		w.checkValue(t, name, object.BinaryData["value"], want)
	}
}

func (w *workload) checkItems(t *testing.T, label string, items []apiserver.Object) {
	t.Helper()
	if len(items) != len(w.secrets) {
		t.Errorf("%s: %d secrets, want %d", label, len(items), len(w.secrets))
	}
	seen := map[string]bool{}
	for _, item := range items {
		name := item.Metadata.Name
		want, known := w.secrets[name]
		if !known || seen[name] {
			t.Errorf("%s: secret %s is there twice or should not be", label, name)
		}
		seen[name] = true
		w.checkValue(t, name, item.Data["value"], want)
	}
}

// checkValue compares without printing: a value is not for logs.
func (w *workload) checkValue(t *testing.T, name string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("value of %s has %d bytes and differs from the %d bytes written", name, len(got), len(want))
	}
}
