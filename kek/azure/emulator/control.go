package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Control returns a handler by which another process works a vault: GET / lists the
// calls, one JSON object a line; GET /version says which version of the key in ?key= is
// the latest; POST /faults injects the Fault in the body, DELETE /faults ends them all;
// POST /rotate, /disable, /enable, /delete and /recover do that to the key in ?key= (and
// its ?version=). Whoever reaches it can do all that.
func (s *Server) Control(v *Vault) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		encoder := json.NewEncoder(w)
		for _, c := range s.Calls() {
			if encoder.Encode(c) != nil {
				return // the client has gone
			}
		}
	})
	// A key that is not there is a mistake of the caller's, which the methods of a
	// Vault panic at.
	forKey := func(do func(w http.ResponseWriter, key, version string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if mistake := recover(); mistake != nil {
					http.Error(w, fmt.Sprint(mistake), http.StatusNotFound)
				}
			}()
			do(w, r.FormValue("key"), r.FormValue("version"))
		}
	}
	mux.HandleFunc("GET /version", forKey(func(w http.ResponseWriter, key, _ string) { fmt.Fprintln(w, v.Current(key)) }))
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.Inject(f)
	})
	mux.HandleFunc("DELETE /faults", func(http.ResponseWriter, *http.Request) { s.ClearFaults() })
	for verb, do := range map[string]func(key, version string){
		"rotate":  func(key, _ string) { v.Rotate(key) },
		"disable": func(key, version string) { v.SetEnabled(key, version, false) },
		"enable":  func(key, version string) { v.SetEnabled(key, version, true) },
		"delete":  func(key, _ string) { v.Delete(key) },
		"recover": func(key, _ string) { v.Recover(key) },
	} {
		mux.HandleFunc("POST /"+verb, forKey(func(_ http.ResponseWriter, key, version string) { do(key, version) }))
	}
	return mux
}

// DefaultKeyType is the type of keys that a vault of this kind is mostly used with.
func (v *Vault) DefaultKeyType() string {
	if v.hsm() {
		return "oct-HSM"
	}
	return "RSA"
}
