package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/etcdseal/etcdseal/e2e/apiserver"
)

const (
	batchSize = 20
	pageSize  = 6
	// largeSize is the size of a large secret: Kubernetes' limit is 1 MiB.
	largeSize = 900 << 10
)

// workload is a namespace whose secrets are created, changed and deleted
// through kube-apiserver, and what must be in it now.
type workload struct {
	lab        *lab
	api        *apiserver.Client
	namespace  string
	secrets    map[string][]byte
	configMaps map[string][]byte
	// written counts secrets written later on, to give each its own name.
	written int
}

func newWorkload(t *testing.T, l *lab, api *apiserver.Client) *workload {
	t.Helper()
	w := &workload{
		lab: l, api: api, namespace: "e2e",
		secrets: map[string][]byte{}, configMaps: map[string][]byte{},
	}
	if _, err := api.Create(call(t), apiserver.Namespaces, apiserver.NewNamespace(w.namespace)); err != nil {
		t.Fatalf("creating namespace: %v", err)
	}
	return w
}

// openText is in every config map, and in no secret.
func (w *workload) openText() string { return "not-secret-" + w.lab.marker[len("e2e-plaintext-"):] }

// run is the life of secrets: created, read, listed in pages, watched, updated,
// patched in each way there is, deleted one by one and together.
func (w *workload) run(t *testing.T) {
	t.Helper()
	before, _, err := w.api.List(call(t), w.path(), 0, nil)
	if err != nil {
		t.Fatalf("listing secrets: %v", err)
	}
	watching, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	watch, err := w.api.Watch(watching, w.path(), before.Metadata.ResourceVersion)
	if err != nil {
		t.Fatalf("watching secrets: %v", err)
	}
	defer watch.Close()

	history := w.changeOne(t)
	w.checkWatch(t, watch, history)
	w.createBatch(t)
	w.createConfigMap(t)
	w.checkLists(t)
	w.deleteSome(t)
	w.check(t)
}

// changeOne takes one secret through every kind of change and returns the
// events that a watch must have seen.
func (w *workload) changeOne(t *testing.T) []happening {
	t.Helper()
	const name = "walk"
	var history []happening
	value := func(label string) []byte {
		v := w.lab.secret(t, label, 16)
		history = append(history, happening{"MODIFIED", string(v)})
		return v
	}
	created, err := w.api.Create(call(t), w.path(), apiserver.NewSecret(w.namespace, name, value("created")))
	if err != nil {
		t.Fatalf("creating secret: %v", err)
	}
	history[0].Type = "ADDED"
	if _, err := w.api.Create(call(t), w.path(), apiserver.NewSecret(w.namespace, name, nil)); statusCode(err) != http.StatusConflict {
		t.Errorf("creating a secret again: %v, want 409", err)
	}

	stale := created
	created.Data["value"] = value("updated")
	if _, err := w.api.Update(call(t), w.path(), created); err != nil {
		t.Fatalf("updating secret: %v", err)
	}
	if _, err := w.api.Update(call(t), w.path(), stale); statusCode(err) != http.StatusConflict {
		t.Errorf("updating a secret from a stale version: %v, want 409", err)
	}
	for _, contentType := range []string{
		apiserver.JSONPatch, apiserver.MergePatch, apiserver.StrategicPatch, apiserver.ApplyPatch,
	} {
		want := value(contentType)
		var patched apiserver.Object
		path, patch := w.patch(name, contentType, want)
		if err := w.api.Patch(call(t), path, contentType, patch, &patched); err != nil {
			t.Fatalf("patching secret by %s: %v", contentType, err)
		}
		w.checkValue(t, name, patched.Data["value"], want)
	}
	if err := w.api.Delete(call(t), w.path(), name); err != nil {
		t.Fatalf("deleting secret: %v", err)
	}
	if _, err := w.api.Get(call(t), w.path(), name); statusCode(err) != http.StatusNotFound {
		t.Errorf("reading a deleted secret: %v, want 404", err)
	}
	last := history[len(history)-1].Value
	return append(history, happening{"DELETED", last})
}

// patch is the path and body that set the secret's value.
func (w *workload) patch(name, contentType string, value []byte) (path, patch string) {
	path = w.path() + "/" + name
	encoded := base64.StdEncoding.EncodeToString(value)
	switch contentType {
	case apiserver.JSONPatch:
		return path, fmt.Sprintf(`[{"op":"replace","path":"/data/value","value":%q}]`, encoded)
	case apiserver.ApplyPatch:
		return path + "?fieldManager=e2e&force=true", fmt.Sprintf(
			"apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ndata: {value: %s}\n", name, encoded)
	default:
		return path, fmt.Sprintf(`{"data":{"value":%q}}`, encoded)
	}
}

// createBatch creates secrets of all sizes, half of them labelled.
func (w *workload) createBatch(t *testing.T) {
	t.Helper()
	for i := range batchSize {
		size := []int{0, 1, 100, 4 << 10, 64 << 10}[i%5]
		if i == batchSize-1 {
			size = largeSize
		}
		object := apiserver.NewSecret(w.namespace, fmt.Sprintf("batch-%02d", i), w.lab.secret(t, "batch", size))
		if i%2 == 0 {
			object.Metadata.Labels = map[string]string{"half": "even"}
		}
		w.create(t, object)
	}
}

// create creates a secret that stays.
func (w *workload) create(t *testing.T, object apiserver.Object) {
	t.Helper()
	if _, err := w.api.Create(call(t), w.path(), object); err != nil {
		t.Fatalf("creating secret %s: %v", object.Metadata.Name, err)
	}
	w.secrets[object.Metadata.Name] = object.Data["value"]
}

// write creates one more small secret and returns its name.
func (w *workload) write(t *testing.T) string {
	t.Helper()
	w.written++
	name := fmt.Sprintf("later-%03d", w.written)
	w.create(t, apiserver.NewSecret(w.namespace, name, w.lab.secret(t, "later", 32)))
	return name
}

func (w *workload) createConfigMap(t *testing.T) {
	t.Helper()
	name := fmt.Sprintf("config-%d", len(w.configMaps))
	object := apiserver.NewConfigMap(w.namespace, name, []byte(w.openText()))
	if _, err := w.api.Create(call(t), apiserver.ConfigMaps(w.namespace), object); err != nil {
		t.Fatalf("creating config map: %v", err)
	}
	w.configMaps[name] = object.BinaryData["value"]
}

// deleteSome deletes one secret by name and the labelled ones together.
func (w *workload) deleteSome(t *testing.T) {
	t.Helper()
	const single = "batch-01"
	if err := w.api.Delete(call(t), w.path(), single); err != nil {
		t.Fatalf("deleting secret: %v", err)
	}
	delete(w.secrets, single)
	if err := w.api.Do(call(t), http.MethodDelete, w.path()+"?labelSelector=half%3Deven", nil, nil); err != nil {
		t.Fatalf("deleting a collection of secrets: %v", err)
	}
	for i := 0; i < batchSize; i += 2 {
		delete(w.secrets, fmt.Sprintf("batch-%02d", i))
	}
}

func (w *workload) path() string { return apiserver.Secrets(w.namespace) }

// statusCode is the HTTP status of an answer, or 0 for anything else.
func statusCode(err error) int {
	var status *apiserver.StatusError
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}
