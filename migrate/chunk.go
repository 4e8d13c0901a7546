package migrate

import (
	"context"
	"os"
	"runtime"
	"sync"
)

// chunk is a part of a file to be looked at by one goroutine, which sets what follows size
// and then closes looked.
type chunk struct {
	file             *os.File
	start, end, size int64 // of the chunk, and of the file

	known           bool // that the file is one of etcd's
	packed          bool // that it is compressed
	records, sealed int64
	found           []Finding
	err             error
	looked          chan struct{}
}

// split yields a file in chunks. The last of them closes it. Whoever does not want more
// does so instead.
func split(path string, size int64, yield func(*chunk) bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = lockShared(f)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	for start := int64(0); start == 0 || start < info.Size(); start += size {
		c := &chunk{file: f, start: start, end: min(start+size, info.Size()), size: info.Size(), looked: make(chan struct{})}
		if !yield(c) {
			_ = f.Close()
			return context.Canceled
		}
	}
	return nil
}

// inOrder has the chunks that a function yields looked at on all processors, a few at a
// time, and takes them in one after the other. All that it starts has ended when it returns.
func (s *Scanner) inOrder(ctx context.Context, chunks func(context.Context, func(*chunk) bool) error) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := runtime.GOMAXPROCS(0)
	todo, order := make(chan *chunk), make(chan *chunk, 2*workers)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			buf := make([]byte, scanBefore+s.chunk+scanAfter)
			for c := range todo {
				s.look(c, buf)
				close(c.looked)
			}
		})
	}
	var walked error
	all.Go(func() {
		defer close(order)
		defer close(todo)
		walked = chunks(ctx, func(c *chunk) bool {
			select {
			case order <- c:
			case <-ctx.Done():
				return false
			}
			todo <- c // a worker is there until this ends
			return true
		})
	})
	var err error
	for c := range order {
		<-c.looked
		if err == nil {
			err = s.take(c)
		}
		if c.end == c.size {
			_ = c.file.Close() // nothing was written
		}
		if err != nil || ctx.Err() != nil {
			cancel()
		}
	}
	stopped := ctx.Err()
	cancel()
	all.Wait()
	switch {
	case err != nil:
		return err
	case stopped != nil:
		return stopped
	}
	return walked
}
