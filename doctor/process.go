package doctor

import (
	"context"
	"strings"
)

// Host is what is to be known of a process. The zero value is one of which nothing is.
type Host struct {
	// Godebug is the environment's GODEBUG.
	Godebug string
	// Known says that the rest is known, as on Linux.
	Known bool
	// Dumpable says that others of the same user may read the process's memory, and
	// that it may write a core file; CoreLimit is how large that may be, in bytes.
	Dumpable  bool
	CoreLimit uint64
}

// weak are the settings of GODEBUG that bring back what Go took out of TLS and X.509 for a
// reason, with the value that does.
var weak = []string{"tls10server=1", "tlsrsakex=1", "tls3des=1", "tlssha1=1", "tlsunsafeekm=1", "x509sha1=1", "x509negativeserial=1", "x509usepolicies=0", "rsa1024min=0"}

// process looks at the process itself, which has been hardened as serve hardens its own.
func (d *doctor) process(_ context.Context, n *notes) {
	h := d.Host
	switch {
	case !h.Known:
		n.add(Process, Unknown, "memory", "run etcdseal on Linux", "only Linux says whether core files are off")
	case h.Dumpable || h.CoreLimit != 0:
		n.add(Process, Problem, "memory", "see why prctl(PR_SET_DUMPABLE) and setrlimit(RLIMIT_CORE) have no effect: a sandbox may forbid them", "the process may write a core file, with keys in it")
	default:
		n.add(Process, OK, "memory", "", "no core file, and closed to other processes of its user")
	}
	var found []string
	for setting := range strings.SplitSeq(h.Godebug, ",") {
		for _, w := range weak {
			if strings.TrimSpace(setting) == w {
				found = append(found, w)
			}
		}
	}
	if len(found) > 0 {
		n.add(Process, Warning, "GODEBUG", "take it out of the environment, of the service's, too", "%s weakens TLS", strings.Join(found, ","))
		return
	}
	n.add(Process, OK, "GODEBUG", "", "nothing that logs keys or weakens TLS")
}
