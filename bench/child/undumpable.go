package child

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Shown says what the kernel lets the calling process see and do of one that is not dumpable, as etcdseal is not.
type Shown struct {
	PSS  bool // Memory's; otherwise RSS stands for it
	Peak bool // whether ResetPeak does something
}

// ShownUndumpable asks for the capabilities of the calling process. The files of a process that is not dumpable belong to root (proc(5)), which is all that
// keeps others from writing to clear_refs; smaps_rollup is for those only who may trace any process (ptrace(2), "Ptrace access mode checking").
func ShownUndumpable() (Shown, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return Shown{}, fmt.Errorf("reading own capabilities: %w", err)
	}
	has := func(capability int) bool { return data[capability/32].Effective>>(capability%32)&1 == 1 }
	return Shown{PSS: has(unix.CAP_SYS_PTRACE), Peak: os.Geteuid() == 0 || has(unix.CAP_DAC_OVERRIDE)}, nil
}
