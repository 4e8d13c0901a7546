// Command kubelet stands in for a kubelet on the nodes of package kubeadm: it runs what
// the manifests of static pods say, as processes in place of containers. A manifest that
// changes ends its pod and starts the new one, one that is taken away ends it, and a pod
// that ends by itself is started again. A container without a command runs the program
// of its own name, in place of its image's entry point.
//
//	kubelet MANIFESTS LOGS
//
// What a pod prints goes to the file LOGS/POD.log. Probes, images, volumes and limits are
// not looked at.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

const (
	// interval is the pause between two looks at the manifests.
	interval = 100 * time.Millisecond
	// grace is how long a pod may take to end, as in a Pod without another period.
	grace = 30 * time.Second
	// backoff is the pause before a pod that has ended is started again.
	backoff = time.Second
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: kubelet MANIFESTS LOGS")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	k := kubelet{manifests: os.Args[1], logs: os.Args[2], pods: map[string]*pod{}}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		k.sync(ctx)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	for _, p := range k.pods {
		p.end()
	}
}

type kubelet struct {
	manifests, logs string
	pods            map[string]*pod // by their manifests' files
}

// pod is a manifest that is being carried out.
type pod struct {
	manifest string
	cancel   context.CancelFunc
	done     chan struct{}
}

func (p *pod) end() {
	p.cancel()
	<-p.done
}

// sync makes what runs equal to what the manifests say.
func (k *kubelet) sync(ctx context.Context) {
	there := map[string]string{}
	files, err := filepath.Glob(filepath.Join(k.manifests, "*.yaml"))
	if err != nil {
		log.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil { // else it was taken away meanwhile
			there[file] = string(text)
		}
	}
	for file, p := range k.pods {
		if there[file] != p.manifest {
			p.end()
			delete(k.pods, file)
		}
	}
	for file, manifest := range there {
		if k.pods[file] == nil {
			k.start(ctx, file, manifest)
		}
	}
}

// start carries out a manifest. One that cannot be read is looked at again when it changes.
func (k *kubelet) start(ctx context.Context, file, manifest string) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pod{manifest: manifest, cancel: cancel, done: make(chan struct{})}
	k.pods[file] = p
	name, command, err := parse(manifest)
	if err != nil {
		log.Printf("reading %s: %v", file, err)
		close(p.done)
		return
	}
	go func() {
		defer close(p.done)
		for ctx.Err() == nil {
			err := run(ctx, command, filepath.Join(k.logs, name+".log"))
			log.Printf("pod %s has ended: %v", name, err)
			select {
			case <-ctx.Done():
			case <-time.After(backoff):
			}
		}
	}()
}

// parse returns a pod's name and the command line of its only container.
func parse(manifest string) (name string, command []string, err error) {
	var parsed struct {
		Kind     string
		Metadata struct{ Name string }
		Spec     struct {
			Containers []struct {
				Name          string
				Command, Args []string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(manifest), &parsed); err != nil {
		return "", nil, err
	}
	if parsed.Kind != "Pod" || parsed.Metadata.Name == "" || len(parsed.Spec.Containers) != 1 {
		return "", nil, fmt.Errorf("it is not a Pod with a name and one container")
	}
	container := parsed.Spec.Containers[0]
	if len(container.Command) == 0 {
		container.Command = []string{container.Name}
	}
	return parsed.Metadata.Name, append(container.Command, container.Args...), nil
}

// run runs a pod's process until it ends or ctx does.
func run(ctx context.Context, command []string, logFile string) error {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	return cmd.Run()
}
