package proxy

import (
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	"github.com/etcdseal/etcdseal/crypto/dek"
	"github.com/etcdseal/etcdseal/crypto/envelope"
	"github.com/etcdseal/etcdseal/kek"
	"github.com/etcdseal/etcdseal/proxy/relay"
)

// errPlaintext says that a value is not sealed under a rule that demands it.
var errPlaintext = errors.New("the stored value is not sealed, and its rule says `plaintext: deny`; seal it by writing it again, or allow plaintext until then")

// refusal is a status of the proxy's own: its text begins with the program's
// name.
func refusal(code codes.Code, format string, args ...any) *relay.Status {
	return &relay.Status{Code: code, Message: "etcdseal: " + fmt.Sprintf(format, args...)}
}

// keyRefusal is the status of a call that failed at the value of one key.
func keyRefusal(key []byte, doing string, err error) *relay.Status {
	return refusal(codeOf(err), "%s the value of %s: %v", doing, quote(key), err)
}

// appliedRefusal is the status of a call that etcd has carried out but whose
// answer cannot be shown. It must not look as if trying again could help: that
// would carry the call out twice.
func appliedRefusal(st *relay.Status, revision int64) *relay.Status {
	code := st.Code
	if code == codes.Unavailable {
		code = codes.FailedPrecondition
	}
	return &relay.Status{Code: code, Message: fmt.Sprintf("%s (the call itself was applied at revision %d)", st.Message, revision)}
}

// codeOf chooses the gRPC code of a failure to seal or open. Unavailable only
// when trying again can help, for etcd's client does that.
func codeOf(err error) codes.Code {
	var version *envelope.VersionError
	var wrongKey *envelope.WrongKeyError
	var record *dek.RecordVersionError
	var fromKEK *kek.Error
	switch {
	case errors.Is(err, errPlaintext), errors.Is(err, dek.ErrNoKEK):
		return codes.FailedPrecondition
	case errors.Is(err, envelope.ErrAuthentication), errors.Is(err, envelope.ErrTruncated),
		errors.As(err, &version), errors.As(err, &wrongKey), errors.As(err, &record),
		errors.Is(err, dek.ErrUnknownDEK), errors.Is(err, dek.ErrBadRecord),
		errors.Is(err, dek.ErrMismatch), errors.Is(err, dek.ErrTombstoned):
		return codes.DataLoss
	case errors.As(err, &fromKEK):
		switch {
		case fromKEK.Class.Denies():
			return codes.FailedPrecondition
		case fromKEK.Class == kek.Corrupt:
			return codes.DataLoss
		}
		return codes.Unavailable
	}
	return codeOfEtcd(err)
}

// codeOfEtcd is codeOf for what etcd said to one of the proxy's own calls.
func codeOfEtcd(err error) codes.Code {
	code := codes.Unavailable
	var fromClient rpctypes.EtcdError
	var fromCheck *relay.Status
	switch {
	case errors.As(err, &fromClient):
		code = fromClient.Code()
	case errors.As(err, &fromCheck):
		code = fromCheck.Code
	}
	switch code {
	case codes.InvalidArgument, codes.PermissionDenied, codes.FailedPrecondition, codes.Unimplemented:
		return codes.FailedPrecondition
	case codes.ResourceExhausted:
		return codes.ResourceExhausted
	}
	return codes.Unavailable
}
