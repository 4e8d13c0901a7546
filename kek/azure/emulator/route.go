package emulator

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// permissions are the key_ops that operations on a version need.
var permissions = map[string]string{OpWrap: "wrapKey", OpUnwrap: "unwrapKey", OpEncrypt: "encrypt", OpDecrypt: "decrypt"}

// maxBody is the largest request that is read.
const maxBody = 1 << 20

// target is what a request is for.
type target struct{ op, name, version string }

// route finds out what a request is for.
func route(method, path string) (target, bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if parts[len(parts)-1] == "" { // GET /keys/{name}/ is the latest version
		parts = parts[:len(parts)-1]
	}
	if len(parts) < 2 || len(parts) > 4 {
		return target{}, false
	}
	t := target{name: parts[1]}
	if parts[0] == "deletedkeys" {
		t.op = map[string]string{"GET": OpGetDeleted, "DELETE": OpPurge, "POST/recover": OpRecover}[strings.Join(append([]string{method}, parts[2:]...), "/")]
		return t, t.op != ""
	}
	if parts[0] != "keys" {
		return target{}, false
	}
	last := strings.ToLower(parts[len(parts)-1])
	switch tail := len(parts); {
	case method == "DELETE" && tail == 2:
		t.op = OpDelete
	case method == "GET" && tail == 2:
		t.op = OpGet
	case method == "POST" && tail == 3 && (last == OpCreate || last == OpRotate):
		t.op = last
	case tail == 3 && last == "rotationpolicy":
		t.op = map[string]string{"GET": OpGetPolicy, "PUT": OpUpdatePolicy}[method]
	case method == "GET" && tail == 3 && last == OpVersions:
		t.op = OpVersions
	case method == "GET" && tail == 3:
		t.op, t.version = OpGet, parts[2]
	case method == "PATCH" && tail <= 3:
		t.op = OpUpdate
		if tail == 3 {
			t.version = parts[2]
		}
	case method == "POST" && tail >= 3 && permissions[last] != "":
		t.op = last
		if tail == 4 {
			t.version = parts[2]
		}
	}
	return t, t.op != ""
}

// serveVault answers a vault's request and logs it.
func (s *Server) serveVault(v *Vault, w http.ResponseWriter, r *http.Request) {
	t, ok := route(r.Method, r.URL.Path)
	call := Call{Time: s.now(), Vault: v.config.Host, Op: t.op, Key: t.name, Version: t.version,
		RequestID: newGUID(), ClientRequestID: r.Header.Get("X-Ms-Client-Request-Id"), UserAgent: r.UserAgent()}
	defer func() { s.log(call) }()
	v.setHeader(w.Header(), call)
	answer := func(p *problem) {
		call.Status, call.Code, call.Inner = p.status, p.code, p.inner
		p.write(w)
	}
	if !ok || r.URL.Query().Get("api-version") == "" {
		answer(badParameter("The request URI or its api-version is not valid: " + r.URL.Path))
		return
	}
	fault := s.take(t.op, v.config.Host, false)
	if fault == nil {
		token, p := v.authorize(r)
		if p != nil {
			answer(p)
			return
		}
		call.Tenant, call.Client = token.tenant, token.client
		fault = s.take(t.op, v.config.Host, true)
	}
	if fault != nil {
		done := fault.Status == 0 && !fault.Drop || fault.AfterEffect
		if !s.wait(fault, r) || fault.Drop && !fault.AfterEffect {
			panic(http.ErrAbortHandler)
		}
		if !done {
			call.Status, call.Code, call.Inner = fault.Status, fault.Code, fault.Inner
			fault.write(w)
			return
		}
	}
	status, body, p := v.serve(t, r)
	switch {
	case fault != nil && fault.AfterEffect && fault.Drop:
		panic(http.ErrAbortHandler)
	case fault != nil && fault.AfterEffect && fault.Status != 0:
		call.Status, call.Code, call.Inner = fault.Status, fault.Code, fault.Inner
		fault.write(w)
	case p != nil:
		answer(p)
	default:
		call.Status = status
		if body == nil {
			w.WriteHeader(status)
			return
		}
		writeJSON(w, status, body)
	}
}

// setHeader sets what the service sends with every answer.
func (v *Vault) setHeader(h http.Header, c Call) {
	h.Set("Cache-Control", "no-cache")
	h.Set("Strict-Transport-Security", "max-age=31536000;includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Ms-Request-Id", c.RequestID)
	h.Set("X-Ms-Keyvault-Region", "emulator")
	h.Set("X-Ms-Keyvault-Service-Version", "1.9.0.0")
	h.Set("X-Ms-Keyvault-Network-Info", "conn_type=Ipv4;addr=192.0.2.1;act_addr_fam=InterNetwork;")
	if c.ClientRequestID != "" {
		h.Set("X-Ms-Client-Request-Id", c.ClientRequestID)
	}
}

// serve does what an authorised request asks for.
func (v *Vault) serve(t target, r *http.Request) (status int, body any, p *problem) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return 0, nil, badParameter("The request body cannot be read.")
	}
	switch t.op {
	case OpCreate:
		return v.serveCreate(t, data)
	case OpRotate:
		made, p := v.rotate(t.name)
		return v.answer(made, p)
	case OpRecover:
		found, p := v.restore(t.name)
		return v.answer(found, p)
	case OpPurge:
		return http.StatusNoContent, nil, v.purge(t.name)
	case OpDelete:
		k, p := v.remove(t.name)
		return v.answerDeleted(t.name, k, p)
	case OpGetDeleted:
		k, p := v.getDeleted(t.name)
		return v.answerDeleted(t.name, k, p)
	case OpGet, OpUpdate:
		return v.serveVersion(t, data)
	case OpVersions:
		return v.serveVersions(t, r)
	case OpGetPolicy, OpUpdatePolicy:
		return v.servePolicy(t, data)
	}
	return v.serveOperation(t, data)
}

// answer is the bundle of a version.
func (v *Vault) answer(k *keyVersion, p *problem) (int, any, *problem) {
	if p != nil {
		return 0, nil, p
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	return http.StatusOK, v.bundle(k), nil
}

func (v *Vault) answerDeleted(name string, k *key, p *problem) (int, any, *problem) {
	if p != nil {
		return 0, nil, p
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	body := v.bundle(k.versions[len(k.versions)-1])
	body["recoveryId"] = v.URL() + "/deletedkeys/" + name
	body["deletedDate"] = k.deleted.Unix()
	body["scheduledPurgeDate"] = k.deleted.AddDate(0, 0, v.config.RecoverableDays).Unix()
	return http.StatusOK, body, nil
}

// attributesIn are the attributes that a request may hold.
type attributesIn struct {
	Enabled *bool  `json:"enabled"`
	NBF     *int64 `json:"nbf"`
	EXP     *int64 `json:"exp"`
}

func (a attributesIn) times() (notBefore, expires time.Time) {
	if a.NBF != nil {
		notBefore = time.Unix(*a.NBF, 0)
	}
	if a.EXP != nil {
		expires = time.Unix(*a.EXP, 0)
	}
	return notBefore, expires
}

func (v *Vault) serveCreate(t target, data []byte) (int, any, *problem) {
	var in struct {
		Kty        string       `json:"kty"`
		KeySize    int          `json:"key_size"`
		KeyOps     []string     `json:"key_ops"`
		Attributes attributesIn `json:"attributes"`
	}
	if json.Unmarshal(data, &in) != nil {
		return 0, nil, badParameter("The request body is not JSON.")
	}
	spec := keySpec{kty: in.Kty, bits: in.KeySize, ops: in.KeyOps, enabled: in.Attributes.Enabled}
	spec.notBefore, spec.expires = in.Attributes.times()
	made, p := v.create(t.name, spec)
	return v.answer(made, p)
}

func (v *Vault) serveVersion(t target, data []byte) (int, any, *problem) {
	var in struct {
		KeyOps     []string     `json:"key_ops"`
		Attributes attributesIn `json:"attributes"`
	}
	if t.op == OpUpdate && json.Unmarshal(data, &in) != nil {
		return 0, nil, badParameter("The request body is not JSON.")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	k := v.find(t.name, t.version)
	if k == nil {
		return 0, nil, notFound(v.id(t))
	}
	if t.op == OpUpdate {
		k.updated = v.s.now()
		if in.KeyOps != nil {
			k.ops = in.KeyOps
		}
		if in.Attributes.Enabled != nil {
			k.enabled = *in.Attributes.Enabled
		}
		notBefore, expires := in.Attributes.times()
		k.notBefore, k.expires = cmp.Or(notBefore, k.notBefore), cmp.Or(expires, k.expires)
	}
	return http.StatusOK, v.bundle(k), nil
}

// id is how the service names what it did not find.
func (v *Vault) id(t target) string {
	if t.version == "" {
		return t.name
	}
	return t.name + "/" + t.version
}

// serveVersions lists the versions in an order that has nothing to do with their
// age, as the service does, in pages.
func (v *Vault) serveVersions(t target, r *http.Request) (int, any, *problem) {
	query := r.URL.Query()
	size, err := strconv.Atoi(cmp.Or(query.Get("maxresults"), "25"))
	if err != nil || size < 1 || size > 25 {
		return 0, nil, badParameter("Invalid maxresults")
	}
	skip, err := strconv.Atoi(cmp.Or(query.Get("$skiptoken"), "0"))
	if err != nil || skip < 0 {
		return 0, nil, badParameter("Invalid skiptoken")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.find(t.name, "") == nil {
		return 0, nil, notFound(t.name)
	}
	versions := slices.Clone(v.keys[t.name].versions)
	slices.SortFunc(versions, func(a, b *keyVersion) int { return cmp.Compare(a.id, b.id) })
	items, next := []map[string]any{}, any(nil)
	for i := skip; i < len(versions) && i < skip+size; i++ {
		items = append(items, map[string]any{"kid": versions[i].kid(), "attributes": v.attributes(versions[i])})
	}
	if skip+size < len(versions) {
		next = fmt.Sprintf("https://%s:443/keys/%s/versions?api-version=%s&$skiptoken=%d&maxresults=%d", v.config.Host, t.name, query.Get("api-version"), skip+size, size)
	}
	return http.StatusOK, map[string]any{"value": items, "nextLink": next}, nil
}

func (v *Vault) servePolicy(t target, data []byte) (int, any, *problem) {
	var in policy
	if t.op == OpUpdatePolicy && json.Unmarshal(data, &in) != nil {
		return 0, nil, badParameter("The request body is not JSON.")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.find(t.name, "") == nil {
		return 0, nil, notFound(t.name)
	}
	k, now := v.keys[t.name], v.s.now().Unix()
	if t.op == OpUpdatePolicy {
		in = in.withNotify()
		attributes := policyAttributes{Created: now, Updated: now}
		if in.Attributes != nil {
			attributes.ExpiryTime = in.Attributes.ExpiryTime
		}
		if k.policy.Attributes != nil {
			attributes.Created = k.policy.Attributes.Created
		}
		in.Attributes = &attributes
		k.policy = in
	}
	out := k.policy.withNotify()
	out.ID = v.URL() + "/keys/" + t.name + "/rotationpolicy"
	return http.StatusOK, out, nil
}

// serveOperation wraps, unwraps, encrypts or decrypts.
func (v *Vault) serveOperation(t target, data []byte) (int, any, *problem) {
	var in struct {
		Alg   string `json:"alg"`
		Value string `json:"value"`
	}
	if json.Unmarshal(data, &in) != nil {
		return 0, nil, badParameter("The request body is not JSON.")
	}
	value, err := base64.RawURLEncoding.DecodeString(in.Value)
	if err != nil || len(value) == 0 {
		return 0, nil, notBase64()
	}
	v.s.mu.Lock()
	k := v.find(t.name, t.version)
	var p *problem
	if k == nil {
		p = notFound(v.id(t))
	} else {
		p = k.allow(t.op, permissions[t.op], v.s.now())
	}
	v.s.mu.Unlock()
	if p != nil {
		return 0, nil, p
	}
	result, p := k.apply(t.op, in.Alg, value)
	if p != nil {
		return 0, nil, p
	}
	body := map[string]any{"kid": k.kid(), "value": base64.RawURLEncoding.EncodeToString(result)}
	if v.hsm() {
		body["alg"] = in.Alg
	}
	return http.StatusOK, body, nil
}
