// Package kmstest is a Kubernetes KMS v2 plugin for tests. It serves with Kubernetes'
// own server library (k8s.io/kms/pkg/service), behaves as a good plugin does, and does
// as it is told what a bad one does. Its keys are made of their ids, so that it opens
// what another Plugin of the same secret wrapped; they protect nothing.
package kmstest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"
)

// Annotation is the name of the annotation that a Plugin wants back with everything
// that it encrypted.
const Annotation = "nonce.kmstest.etcdseal.example"

// Hooks change what a Plugin answers. Each gets the good answer, to change it as it
// likes, or makes the request fail. ctx ends with the request. Nil changes nothing.
type Hooks struct {
	Status  func(ctx context.Context, answer *service.StatusResponse) error
	Encrypt func(ctx context.Context, answer *service.EncryptResponse) error
	// Decrypt gets the plaintext, or nil if it did not authenticate.
	Decrypt func(ctx context.Context, request *service.DecryptRequest, plaintext *[]byte) error
}

// Plugin is a plugin with any number of keys. It is safe for concurrent use.
type Plugin struct {
	secret string

	mu    sync.Mutex // guards all below
	keyID string
	hooks Hooks
	uids  []string
	calls map[string]int
}

var _ service.Service = (*Plugin)(nil)

// New returns a Plugin whose current key is keyID.
func New(secret, keyID string) *Plugin {
	return &Plugin{secret: secret, keyID: keyID, calls: map[string]int{}}
}

// Rotate makes another key the current one. All others decrypt.
func (p *Plugin) Rotate(keyID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keyID = keyID
}

// Hook sets the hooks.
func (p *Plugin) Hook(h Hooks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks = h
}

// UIDs returns the ids of all requests that had one, in order.
func (p *Plugin) UIDs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.uids)
}

// Calls returns how many requests of a method there were: "Status", "Encrypt" or
// "Decrypt".
func (p *Plugin) Calls(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

func (p *Plugin) enter(method, uid string) (string, Hooks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[method]++
	if uid != "" {
		p.uids = append(p.uids, uid)
	}
	return p.keyID, p.hooks
}

// Status implements service.Service.
func (p *Plugin) Status(ctx context.Context) (*service.StatusResponse, error) {
	keyID, hooks := p.enter("Status", "")
	answer := &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: keyID}
	if hooks.Status != nil {
		if err := hooks.Status(ctx, answer); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// Encrypt implements service.Service.
func (p *Plugin) Encrypt(ctx context.Context, uid string, plaintext []byte) (*service.EncryptResponse, error) {
	keyID, hooks := p.enter("Encrypt", uid)
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce)
	answer := &service.EncryptResponse{
		Ciphertext:  p.aead(keyID).Seal(nil, nonce, plaintext, []byte(keyID)),
		KeyID:       keyID,
		Annotations: map[string][]byte{Annotation: nonce},
	}
	if hooks.Encrypt != nil {
		if err := hooks.Encrypt(ctx, answer); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// Decrypt implements service.Service. As with most plugins, what is wrong is told with
// the code Unknown.
func (p *Plugin) Decrypt(ctx context.Context, uid string, request *service.DecryptRequest) ([]byte, error) {
	_, hooks := p.enter("Decrypt", uid)
	var plaintext []byte
	err := errors.New("decryption failed")
	if nonce := request.Annotations[Annotation]; len(nonce) == 12 && len(request.Annotations) == 1 {
		plaintext, err = p.aead(request.KeyID).Open(nil, nonce, request.Ciphertext, []byte(request.KeyID))
	}
	if hooks.Decrypt != nil {
		if err := hooks.Decrypt(ctx, request, &plaintext); err != nil {
			return nil, err
		}
	}
	if plaintext == nil && err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	return plaintext, nil
}

func (p *Plugin) aead(keyID string) cipher.AEAD {
	key := sha256.Sum256([]byte(p.secret + "\x00" + keyID))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the size is right
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// handshake bounds the beginning of each connection to a server.
const handshake = time.Minute

// Serve serves on a unix socket, where nothing may be, and returns when it answers.
// stop ends it as a crash does: requests in flight fail, and the socket is gone when
// it returns.
func Serve(s service.Service, socket string) (stop func(), err error) {
	server := service.NewGRPCService(socket, handshake, s)
	ended := make(chan struct{})
	var failed error // once ended
	go func() {
		defer close(ended)
		failed = server.ListenAndServe()
	}()
	// Before it answers it cannot be stopped.
	if !answers(socket, ended) {
		<-ended
		return nil, fmt.Errorf("serving KMS plugin: %w", failed)
	}
	return sync.OnceFunc(func() {
		server.Close()
		<-ended
	}), nil
}

// answers waits until a server answers or has ended, and reports whether it answers.
func answers(socket string, ended chan struct{}) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err) // none of the options is wrong
	}
	defer conn.Close()
	// No plugin has this method, so that none notices.
	err = conn.Invoke(ctx, "/v2.KeyManagementService/None", &kmsapi.StatusRequest{}, &kmsapi.StatusResponse{}, grpc.WaitForReady(true))
	return status.Code(err) == codes.Unimplemented
}
