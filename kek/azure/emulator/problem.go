package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// problem is an error of the service: a KeyVaultError of the API definition, whose
// codes are known only from recordings and issues.
type problem struct {
	status               int
	code, inner, message string
	header               http.Header
}

// write sends the body that the service sends. A problem without a code has none.
func (p *problem) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	if p.code == "" {
		w.WriteHeader(p.status)
		return
	}
	type detail struct {
		Code       string  `json:"code"`
		Message    string  `json:"message,omitempty"`
		InnerError *detail `json:"innererror,omitempty"`
	}
	body := detail{Code: p.code, Message: p.message}
	if p.inner != "" {
		body.InnerError = &detail{Code: p.inner}
	}
	writeJSON(w, p.status, map[string]any{"error": body})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		panic(err) // the bodies are of types that can be encoded
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client may have gone
}

const (
	caller      = "appid=11111111-1111-1111-1111-111111111111;oid=22222222-2222-2222-2222-222222222222;iss=https://sts.windows.net/"
	recoverHelp = "If you recently deleted this key you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"
)

func notFound(id string) *problem {
	return &problem{status: 404, code: "KeyNotFound", message: fmt.Sprintf("A key with (name/id) %s was not found in this key vault. %s", id, recoverHelp)}
}

func disabled(operation string) *problem {
	return &problem{status: 403, code: "Forbidden", inner: "KeyDisabled", message: fmt.Sprintf("Operation %s is not allowed on a disabled key.", operation)}
}

func notPermitted(operation string) *problem {
	return &problem{status: 403, code: "Forbidden", inner: "KeyOperationForbidden", message: fmt.Sprintf("Operation %s is not permitted on this key.", operation)}
}

func expired(operation string) *problem {
	return &problem{status: 403, code: "Forbidden", inner: "KeyExpired", message: fmt.Sprintf("Operation %s isn't allowed on an expired key", operation)}
}

func notYetValid(operation string) *problem {
	return &problem{status: 403, code: "Forbidden", inner: "KeyNotYetValid", message: fmt.Sprintf("Operation %s isn't allowed on a key that is not yet valid", operation)}
}

func badParameter(message string) *problem {
	return &problem{status: 400, code: "BadParameter", message: message}
}

func undecryptable() *problem {
	return badParameter("Unable to decrypt specified value with this key.")
}

func notBase64() *problem {
	return badParameter("Content of 'value' is not base64url.\r\nProperty 'value' is required.\r\n")
}

func deletedName(name string, gone bool) *problem {
	if !gone {
		return &problem{status: 409, code: "Conflict", inner: "ObjectIsBeingDeleted", message: fmt.Sprintf("Key %s is currently being deleted.", name)}
	}
	return &problem{status: 409, code: "Conflict", inner: "ObjectIsDeletedButRecoverable",
		message: fmt.Sprintf("Key %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged.", name)}
}

func purgeProtected() *problem {
	return &problem{status: 403, code: "Forbidden", message: "Operation \"purge\" is not allowed because purge protection is enabled for this vault. Key Vault service will automatically purge it after the retention period has passed.\r\nVault: emulator;location=emulator"}
}

func unauthorized(message, challenge string) *problem {
	return &problem{status: 401, code: "Unauthorized", message: message, header: http.Header{"Www-Authenticate": {challenge}}}
}
