package kmsv2

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/kek/kmsv2/kmstest"
)

// An encoded request is what gRPC's codec makes of it, and is wiped when gRPC lets go of
// it. The caller's DEK is not.
func TestWiper(t *testing.T) {
	plain := encoding.GetCodecV2(proto.Name)
	for _, size := range []int{1, 32, 5000} {
		request := &kmsapi.EncryptRequest{Plaintext: bytes.Repeat([]byte{0xd5}, size), Uid: newUID()}
		want, err := plain.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wiper{plain}.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Materialize(), want.Materialize()) {
			t.Errorf("%d bytes are encoded in another way", size)
		}
		encoded := got[0].ReadOnlyData()
		got.Free()
		if bytes.Count(encoded, []byte{0}) != len(encoded) {
			t.Errorf("%d bytes are not wiped", size)
		}
		if !bytes.Equal(request.Plaintext, bytes.Repeat([]byte{0xd5}, size)) {
			t.Errorf("%d bytes: the caller's are wiped", size)
		}
	}
	if name := (wiper{plain}).Name(); name != "" {
		t.Errorf("the content type would end with +%s, which kube-apiserver's does not", name)
	}
	if _, err := (wiper{plain}).Marshal("text"); err == nil {
		t.Error("a text is encoded")
	}
}

// The plugin is away, comes back, and is away again: calls fail and recover by
// themselves, requests that come while it restarts wait for it.
func TestRestart(t *testing.T) {
	socket, plugin := socketPath(t), kmstest.New("secret", "key-1")
	k := open(t, Config{Endpoint: "unix://" + socket, Timeout: patient, PollInterval: never})
	waiting := make(chan error, 1)
	go func() {
		_, err := k.Version(t.Context())
		waiting <- err
	}()
	stop := serve(t, plugin, socket)
	if err := <-waiting; err != nil {
		t.Fatalf("Version, begun before the plugin: %v", err)
	}
	w, err := k.Wrap(t.Context(), newDEK())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		stop()
		go func() {
			_, err := k.Unwrap(t.Context(), w)
			waiting <- err
		}()
		stop = serve(t, plugin, socket)
		if err := <-waiting; err != nil {
			t.Errorf("Unwrap during a restart: %v", err)
		}
	}
}

// What keeps etcdseal from connecting is named.
func TestUnreachable(t *testing.T) {
	socket := socketPath(t)
	k := open(t, Config{Endpoint: "unix://" + socket, Timeout: 5 * time.Second})
	_, err := k.Version(t.Context())
	wantClass(t, "nothing there", err, kek.Unavailable, socket, "no such file", "does it run")

	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = k.Wrap(t.Context(), newDEK())
	wantClass(t, "a file", err, kek.Unavailable, "not a unix socket")
	if _, err := New(Config{Endpoint: "unix://" + socket}); err == nil || !strings.Contains(err.Error(), "not a unix socket") {
		t.Errorf("New with a file: %v", err)
	}
}

// A server that speaks something else is Unavailable too.
func TestNotGRPC(t *testing.T) {
	socket := socketPath(t)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n" + strings.Repeat("<html>", 100)))
			_ = conn.Close()
		}
	}()
	k := open(t, Config{Endpoint: "unix://" + socket, Timeout: 100 * time.Millisecond})
	_, err = k.Version(t.Context())
	wantClass(t, "Version", err, kek.Unavailable)
}
