//go:build !linux

package migrate

import "os"

// lockShared does nothing: whether an etcd is using a file is known on Linux only.
func lockShared(*os.File) error { return nil }
