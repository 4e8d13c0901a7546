package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Content types of the ways to patch an object.
const (
	JSONPatch      = "application/json-patch+json"
	MergePatch     = "application/merge-patch+json"
	StrategicPatch = "application/strategic-merge-patch+json"
	ApplyPatch     = "application/apply-patch+yaml"

	jsonType = "application/json"
)

// Client calls the Kubernetes API. It is safe for concurrent use.
type Client struct {
	base  string
	token string // a bearer token, empty for none
	http  *http.Client
}

// StatusError is an answer other than success.
type StatusError struct {
	Code    int    // HTTP status
	Reason  string // of the Status object
	Message string // of the Status object
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("kube-apiserver answered %d %s: %s", e.Code, e.Reason, e.Message)
}

func newClient(base string, config *tls.Config) *Client {
	c := NewClient(base, &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true})
	c.token = token
	return c
}

// NewClient is a client of the server at base, an URL, which knows it by the certificate
// that the transport shows.
func NewClient(base string, transport *http.Transport) *Client {
	return &Client{base: base, http: &http.Client{Transport: transport}}
}

// Ready asks /readyz and returns what is not ready.
func (c *Client) Ready(ctx context.Context) error {
	response, err := c.send(ctx, http.MethodGet, "/readyz?verbose", "", nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Do sends one call with body, unless nil, as JSON, and decodes the answer
// into out unless nil.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encoding body of %s %s: %w", method, path, err)
		}
	}
	return c.exchange(ctx, method, path, jsonType, data, out)
}

// Patch sends a patch of the given content type and decodes the answer into
// out unless nil.
func (c *Client) Patch(ctx context.Context, path, contentType, patch string, out any) error {
	return c.exchange(ctx, http.MethodPatch, path, contentType, []byte(patch), out)
}

func (c *Client) exchange(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	response, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("decoding answer of %s %s: %w", method, path, err)
	}
	return nil
}

// send sends one call; the caller closes the body of the answer, which is a
// success.
func (c *Client) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making request %s %s: %w", method, path, err)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	failure := &StatusError{Code: response.StatusCode}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading answer of %s %s: %w", method, path, err)
	}
	if json.Unmarshal(text, failure) != nil {
		failure.Message = string(text)
	}
	failure.Code = response.StatusCode
	return nil, failure
}

// Watch is an open watch. Next is for one goroutine.
type Watch struct {
	body    io.ReadCloser
	decoder *json.Decoder
}

// Event is one event of a watch.
type Event struct {
	Type   string // ADDED, MODIFIED, DELETED, BOOKMARK or ERROR
	Object json.RawMessage
}

// Watch opens a watch on a list's path from the given resource version. It
// ends with ctx or Close.
func (c *Client) Watch(ctx context.Context, path, resourceVersion string) (*Watch, error) {
	query := url.Values{"watch": {"true"}, "resourceVersion": {resourceVersion}}
	response, err := c.send(ctx, http.MethodGet, path+"?"+query.Encode(), "", nil)
	if err != nil {
		return nil, err
	}
	return &Watch{body: response.Body, decoder: json.NewDecoder(response.Body)}, nil
}

// Next waits for the next event.
func (w *Watch) Next() (Event, error) {
	var event Event
	err := w.decoder.Decode(&event)
	return event, err
}

// Close ends the watch.
func (w *Watch) Close() { _ = w.body.Close() }

// Secret decodes the event's object. An ERROR event is an error.
func (e Event) Secret() (Object, error) {
	var object Object
	if e.Type == "ERROR" {
		failure := &StatusError{}
		if err := json.Unmarshal(e.Object, failure); err != nil {
			return object, fmt.Errorf("decoding the watch's error: %w", err)
		}
		return object, failure
	}
	if err := json.Unmarshal(e.Object, &object); err != nil {
		return object, fmt.Errorf("decoding the watch's object: %w", err)
	}
	return object, nil
}
