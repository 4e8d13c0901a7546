package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// Metadata is the part of an object's metadata that the tests use.
type Metadata struct {
	Name            string            `json:"name,omitempty"`
	Namespace       string            `json:"namespace,omitempty"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
}

// Object is a Secret. A ConfigMap is one too, with its data as BinaryData.
type Object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   Metadata          `json:"metadata"`
	Data       map[string][]byte `json:"data,omitempty"`
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
}

// List is one page of a list.
type List struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Items []Object `json:"items"`
}

// NewSecret is a Secret with one entry.
func NewSecret(namespace, name string, value []byte) Object {
	return Object{
		APIVersion: "v1", Kind: "Secret",
		Metadata: Metadata{Namespace: namespace, Name: name},
		Data:     map[string][]byte{"value": value},
	}
}

// NewConfigMap is a ConfigMap with one entry.
func NewConfigMap(namespace, name string, value []byte) Object {
	return Object{
		APIVersion: "v1", Kind: "ConfigMap",
		Metadata:   Metadata{Namespace: namespace, Name: name},
		BinaryData: map[string][]byte{"value": value},
	}
}

// NewNamespace is a Namespace.
func NewNamespace(name string) Object {
	return Object{APIVersion: "v1", Kind: "Namespace", Metadata: Metadata{Name: name}}
}

// Secrets is the path of a namespace's secrets.
func Secrets(namespace string) string { return "/api/v1/namespaces/" + namespace + "/secrets" }

// ConfigMaps is the path of a namespace's config maps.
func ConfigMaps(namespace string) string { return "/api/v1/namespaces/" + namespace + "/configmaps" }

// Namespaces is the path of all namespaces.
const Namespaces = "/api/v1/namespaces"

// Create creates the object in the collection at path and returns it as stored.
func (c *Client) Create(ctx context.Context, path string, object Object) (Object, error) {
	var stored Object
	err := c.Do(ctx, http.MethodPost, path, object, &stored)
	return stored, err
}

// Get reads one object.
func (c *Client) Get(ctx context.Context, path, name string) (Object, error) {
	var stored Object
	err := c.Do(ctx, http.MethodGet, path+"/"+name, nil, &stored)
	return stored, err
}

// Update replaces the object; its resource version, unless empty, must be the
// stored one.
func (c *Client) Update(ctx context.Context, path string, object Object) (Object, error) {
	var stored Object
	err := c.Do(ctx, http.MethodPut, path+"/"+object.Metadata.Name, object, &stored)
	return stored, err
}

// Delete deletes one object.
func (c *Client) Delete(ctx context.Context, path, name string) error {
	return c.Do(ctx, http.MethodDelete, path+"/"+name, nil, nil)
}

// List reads the collection in pages of limit objects, or at once for 0. It
// returns the items of all pages and the number of pages.
func (c *Client) List(ctx context.Context, path string, limit int, extra url.Values) (List, int, error) {
	var all List
	pages := 0
	for {
		query := url.Values{}
		for key, values := range extra {
			query[key] = values
		}
		if limit > 0 {
			query.Set("limit", fmt.Sprint(limit))
		}
		if all.Metadata.Continue != "" {
			query.Set("continue", all.Metadata.Continue)
			query.Del("resourceVersion")
			query.Del("resourceVersionMatch")
		}
		var page List
		if err := c.Do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return List{}, pages, err
		}
		pages++
		all.Items = append(all.Items, page.Items...)
		all.Metadata = page.Metadata
		if page.Metadata.Continue == "" {
			return all, pages, nil
		}
	}
}
