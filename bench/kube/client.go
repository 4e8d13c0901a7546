package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// callTimeout bounds one call; kube-apiserver itself gives up after a minute.
	callTimeout = 70 * time.Second
	// token is the bearer token of the one user, a member of system:masters, whom no fairness queue holds back.
	token = "bench-administrator"
)

// client calls one kube-apiserver. It shares the machine with what it measures, so it does little: HTTP/1.1 with connections that stay, no compression,
// no redirects, no decoding of answers unless it is asked for. It is safe for concurrent use.
type client struct {
	host      string
	transport *http.Transport
	header    http.Header
}

// call is one request. What it points to is not modified.
type call struct {
	method, path, query string
	body                []byte
	minAnswer           int // the least number of bytes of a right answer
}

func newClient(address string, config *tls.Config, connections int) *client {
	config = config.Clone()
	config.Certificates = nil // the user is the token's
	return &client{
		host: address,
		transport: &http.Transport{
			TLSClientConfig: config, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, DisableCompression: true,
			MaxIdleConns: connections, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, ReadBufferSize: 64 << 10,
		},
		header: http.Header{"Authorization": {"Bearer " + token}, "Accept": {protobufType}, "Content-Type": {protobufType}, "User-Agent": {"bench"}},
	}
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// do makes a call whose answer is only measured.
func (c *client) do(ctx context.Context, k call) error {
	return c.exchange(ctx, k, func(body io.Reader) error {
		n, err := io.Copy(io.Discard, body)
		if err == nil && n < int64(k.minAnswer) {
			err = fmt.Errorf("%d bytes, want at least %d", n, k.minAnswer)
		}
		return err
	})
}

// read makes a call and returns its answer.
func (c *client) read(ctx context.Context, k call) (answer []byte, err error) {
	err = c.exchange(ctx, k, func(body io.Reader) error {
		answer, err = io.ReadAll(body)
		return err
	})
	return answer, err
}

func (c *client) exchange(ctx context.Context, k call, take func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request := (&http.Request{
		Method: k.method, URL: &url.URL{Scheme: "https", Host: c.host, Path: k.path, RawQuery: k.query}, Header: c.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: c.host,
	}).WithContext(ctx)
	if k.body != nil {
		request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(k.body)), int64(len(k.body))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(k.body)), nil }
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("calling %s %s: %w", k.method, k.path, err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		// The answer's text stays out of the error: it could repeat what was sent.
		return fmt.Errorf("calling %s %s: answered %s", k.method, k.path, response.Status)
	}
	if err := take(response.Body); err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", k.method, k.path, err)
	}
	return nil
}

// ready says whether the server is ready for everything.
func (c *client) ready(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodGet, path: "/readyz"})
}

const (
	namespacesPath = "/api/v1/namespaces"
	allSecrets     = "/api/v1/secrets"
)

func secretsPath(namespace string) string { return namespacesPath + "/" + namespace + "/secrets" }

// listAt reads the first page of a collection as it was at a resource version. kube-apiserver without snapshots of its watch cache
// (ListFromCacheSnapshot) can take that from nowhere but etcd.
func listAt(path, version string, limit, minAnswer int) call {
	query := url.Values{"resourceVersion": {version}, "resourceVersionMatch": {"Exact"}, "limit": {strconv.Itoa(limit)}}
	return call{method: http.MethodGet, path: path, query: query.Encode(), minAnswer: minAnswer}
}
