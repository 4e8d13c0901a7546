package e2e

// The kinds of KEK, the faults and the calls of the matrix.
const (
	kindAzure = "azureKeyVault"
	kindKMSv2 = "kmsV2"
	kindLocal = "local"

	faultDown      = "KMS down"
	faultThrottled = "throttled"
	faultSlow      = "slow, 18 s a call"
	faultDisabled  = "key disabled, then enabled"
	faultDeleted   = "key deleted, then recovered"
	faultGone      = "one of two vaults deleted for good"
	faultRotated   = "rotated twice"
	faultChanged   = "KEK changed"

	verbCreate = "create"
	verbUpdate = "update"
	verbGet    = "get"
	verbList   = "list"

	answered = "answered"
	denied   = "500, FailedPrecondition"
	away     = "500, Unavailable"
)

var (
	matrixKinds = []string{kindAzure, kindKMSv2, kindLocal}
	// matrixFaults are in the order of the document.
	matrixFaults = []string{faultDown, faultThrottled, faultSlow, faultDisabled, faultDeleted, faultGone, faultRotated, faultChanged}
	verbs        = []string{verbCreate, verbUpdate, verbGet, verbList}
)

// answers is what is expected of one state: of writes, of reads by name, and of
// lists, which kube-apiserver answers from its memory.
type answers struct {
	class             string // of the KEK in etcdseal_kek_health; "" is not waited for
	ready             bool   // /readyz is 200
	write, read, list string
}

func (a answers) of(verb string) string {
	switch verb {
	case verbGet:
		return a.read
	case verbList:
		return a.list
	}
	return a.write
}

// cell is one KEK and one fault.
type cell struct {
	kind, fault string
	absent      string // why there is no such cell
	running     answers
	started     answers // when etcdseal was killed and started during the fault
	refuses     bool    // it does not start
}

var well = answers{ready: true, write: answered, read: answered, list: answered}

func seen(a answers, class string) answers {
	a.class = class
	return a
}

// lost is the state of a proxy that has no DEK, and gets none.
func lost(answer string) answers { return answers{write: answer, read: answer, list: answered} }

// advice is the table's last column.
var advice = map[string]string{
	faultDown:      "[KMS down](#kms-down)",
	faultThrottled: "[throttled](#throttled)",
	faultSlow:      "[slow](#slow)",
	faultDisabled:  "[key disabled or deleted](#key-disabled-or-deleted)",
	faultDeleted:   "[key disabled or deleted](#key-disabled-or-deleted)",
	faultGone:      "[one of two is gone](#one-of-two-is-gone)",
	faultRotated:   "[rotation](#rotation-and-another-kek)",
	faultChanged:   "[another KEK](#rotation-and-another-kek)",
}

var matrix = []cell{
	{kind: kindAzure, fault: faultDown, running: seen(well, "unavailable"), started: lost(away)},
	{kind: kindAzure, fault: faultThrottled, running: seen(well, "throttled"), started: lost(away)},
	{kind: kindAzure, fault: faultSlow, running: well, started: well},
	{kind: kindAzure, fault: faultDisabled, running: seen(lost(denied), "disabled"), started: lost(denied)},
	{kind: kindAzure, fault: faultDeleted, running: seen(lost(denied), "not_found"), started: lost(denied)},
	{kind: kindAzure, fault: faultGone},
	{kind: kindAzure, fault: faultRotated},
	{kind: kindAzure, fault: faultChanged},
	{kind: kindKMSv2, fault: faultDown, running: seen(well, "unavailable"), started: lost(away)},
	{kind: kindKMSv2, fault: faultThrottled, running: seen(well, "throttled"), started: lost(away)},
	{kind: kindKMSv2, fault: faultSlow, running: seen(well, "unavailable"), started: lost(away)},
	{kind: kindKMSv2, fault: faultDisabled, running: seen(lost(denied), "disabled"), started: lost(denied)},
	{kind: kindKMSv2, fault: faultDeleted, running: seen(lost(denied), "not_found"), started: lost(denied)},
	{kind: kindKMSv2, fault: faultGone},
	{kind: kindKMSv2, fault: faultRotated},
	{kind: kindKMSv2, fault: faultChanged},
	{kind: kindLocal, fault: faultDown, running: well, refuses: true},
	{kind: kindLocal, fault: faultThrottled, absent: "a file does not throttle"},
	{kind: kindLocal, fault: faultSlow, absent: "the file is read once, at the start"},
	{kind: kindLocal, fault: faultDisabled, absent: "a file cannot be disabled"},
	{kind: kindLocal, fault: faultDeleted, running: well, refuses: true},
	{kind: kindLocal, fault: faultGone},
	{kind: kindLocal, fault: faultRotated, absent: "a local KEK has one version; a new file is another KEK"},
	{kind: kindLocal, fault: faultChanged},
}
