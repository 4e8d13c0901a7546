package emulator

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// App is an application or managed identity that may log in, with any of the
// credentials that are set.
type App struct {
	// Tenants are the tenants in which it is known; none is DefaultTenant.
	Tenants []string
	// ClientID is its client id. Required.
	ClientID string
	// Secret is a client secret.
	Secret string
	// Certificate is the certificate of a client assertion's key, an RSA one.
	Certificate *x509.Certificate
	// Federated is the token that the identity provider it trusts has issued,
	// as Kubernetes does for a service account.
	Federated string
	// Managed has the metadata service give tokens for it.
	Managed bool
	// System makes it the identity of calls to the metadata service that name
	// none.
	System bool
}

type app struct{ App }

// token is what an access token stands for.
type token struct {
	tenant, client, resource string
	expires                  time.Time
	revoked                  time.Time // zero: not
}

// AddApp adds an application.
func (s *Server) AddApp(a App) {
	if len(a.Tenants) == 0 {
		a.Tenants = []string{DefaultTenant}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps = append(s.apps, &app{a})
}

// SetSecret gives an application another client secret: the old one is refused from
// now on.
func (s *Server) SetSecret(clientID, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.apps {
		if a.ClientID == clientID {
			a.Secret = secret
		}
	}
}

// RevokeTokens revokes all access tokens given out so far: vaults answer them with
// a claims challenge (continuous access evaluation), and only a login that passes
// the claims on gets another.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		t.revoked = s.now()
	}
}

// ExpireTokens has vaults take all access tokens given out so far for expired.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// issue makes an access token.
func (s *Server) issue(tenant, client, resource string) (text string, expires time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, expires = "emulator."+newID()+newID(), s.now().Add(s.config.TokenLifetime)
	s.tokens[text] = &token{tenant: tenant, client: client, resource: resource, expires: expires}
	return text, expires
}

// challenge is what a vault says to a request without a valid token.
func (v *Vault) challenge() string {
	return fmt.Sprintf(`Bearer authorization="https://login.microsoftonline.com/%s", resource="%s"`, v.config.Tenant, v.resource())
}

// authorize finds the token of a request.
func (v *Vault) authorize(r *http.Request) (token, *problem) {
	text, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	t := v.s.tokens[text]
	var p *problem
	switch {
	case !given:
		p = unauthorized("AKV10000: Request is missing a Bearer or PoP token.", v.challenge())
	case t == nil || !v.s.now().Before(t.expires):
		p = unauthorized("AKV10046: Unable to resolve the key used for signature validation or the token is expired.", v.challenge())
	case t.resource != v.resource():
		p = unauthorized(fmt.Sprintf("AKV10022: Invalid audience. Expected %s, found: %s.", v.resource(), t.resource), v.challenge())
	case t.tenant != v.config.Tenant:
		p = unauthorized(fmt.Sprintf("AKV10032: Invalid issuer. Expected one of https://sts.windows.net/%s/, found https://sts.windows.net/%s/.", v.config.Tenant, t.tenant), v.challenge())
	case !t.revoked.IsZero():
		claims := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, t.revoked.Unix())
		p = unauthorized("AKV10139: The token was revoked (continuous access evaluation).", fmt.Sprintf(
			`Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", claims="%s"`,
			base64.StdEncoding.EncodeToString([]byte(claims))))
	default:
		return *t, nil
	}
	if v.hsm() && !given {
		p.code = "" // a Managed HSM's body is empty
	}
	return token{}, p
}

// The token endpoint, and the one before it, which older clients use (adal): it takes
// a resource and no scope, and has its numbers in strings.
const (
	tokenPath   = "oauth2/v2.0/token"
	tokenPathV1 = "oauth2/token"
)

// serveLogin answers for Microsoft Entra.
func (s *Server) serveLogin(w http.ResponseWriter, r *http.Request) {
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	host := "https://" + r.Host
	switch {
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		name, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			name = r.Host
		}
		s.logLogin(OpDiscovery, "", "", http.StatusOK, "", r)
		writeJSON(w, http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": host + "/common/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": name, "preferred_cache": name, "aliases": []string{name}}},
		})
	case rest == "v2.0/.well-known/openid-configuration":
		s.logLogin(OpDiscovery, tenant, "", http.StatusOK, "", r)
		writeJSON(w, http.StatusOK, map[string]any{
			"token_endpoint": host + "/" + tenant + "/" + tokenPath, "authorization_endpoint": host + "/" + tenant + "/oauth2/v2.0/authorize",
			"issuer": host + "/" + tenant + "/v2.0",
		})
	case (rest == tokenPath || rest == tokenPathV1) && r.Method == http.MethodPost:
		s.serveToken(tenant, w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) logLogin(op, tenant, client string, status int, code string, r *http.Request) {
	s.log(Call{Time: s.now(), Op: op, Tenant: tenant, Client: client, Status: status, Code: code, UserAgent: r.UserAgent()})
}

// refusal is an error of the token endpoint (RFC 6749, section 5.2, with Entra's
// additions).
type refusal struct {
	status int
	err    string
	code   int
	text   string
}

// serveToken answers for the token endpoint.
func (s *Server) serveToken(tenant string, w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "bad form", http.StatusBadRequest)
		return
	}
	client := r.PostForm.Get("client_id")
	if f := s.take(OpToken, "", false); f != nil {
		if !s.wait(f, r) || f.Drop {
			s.logLogin(OpToken, tenant, client, 0, "", r)
			panic(http.ErrAbortHandler)
		}
		if f.Status != 0 {
			s.logLogin(OpToken, tenant, client, f.Status, f.Code, r)
			f.write(w)
			return
		}
	}
	if no := s.login(tenant, r); no != nil {
		s.logLogin(OpToken, tenant, client, no.status, fmt.Sprint("AADSTS", no.code), r)
		writeJSON(w, no.status, map[string]any{
			"error": no.err, "error_codes": []int{no.code}, "error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s", no.code, no.text, newGUID()),
			"timestamp": s.now().UTC().Format("2006-01-02 15:04:05Z"), "trace_id": newGUID(), "correlation_id": newGUID(),
		})
		return
	}
	resource := strings.TrimSuffix(r.PostForm.Get("resource"), "/")
	for _, scope := range strings.Fields(r.PostForm.Get("scope")) {
		if of, ok := strings.CutSuffix(scope, "/.default"); ok {
			resource = of
		}
	}
	text, expires := s.issue(tenant, client, resource)
	s.logLogin(OpToken, tenant, client, http.StatusOK, "", r)
	lifetime := int(expires.Sub(s.now()).Seconds())
	if strings.HasSuffix(r.URL.Path, tokenPathV1) {
		writeJSON(w, http.StatusOK, map[string]any{
			"token_type": "Bearer", "access_token": text, "expires_in": fmt.Sprint(lifetime), "expires_on": fmt.Sprint(expires.Unix()), "resource": resource,
		})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"token_type": "Bearer", "access_token": text, "expires_in": lifetime, "ext_expires_in": lifetime})
}

// login checks the credential of a token request.
func (s *Server) login(tenant string, r *http.Request) *refusal {
	form := r.PostForm
	client := form.Get("client_id")
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.apps, func(a *app) bool { return a.ClientID == client && slices.Contains(a.Tenants, tenant) })
	if at < 0 {
		return &refusal{http.StatusBadRequest, "unauthorized_client", 700016, fmt.Sprintf("Application with identifier '%s' was not found in the directory '%s'.", client, tenant)}
	}
	a := s.apps[at]
	if form.Get("grant_type") != "client_credentials" {
		return &refusal{http.StatusBadRequest, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."}
	}
	assertion := form.Get("client_assertion")
	switch {
	case assertion == "" && a.Secret != "" && form.Get("client_secret") == a.Secret:
		return nil
	case assertion == "":
		return &refusal{http.StatusUnauthorized, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value."}
	case a.Federated != "" && assertion == a.Federated:
		return nil
	case a.Certificate != nil && s.isSigned(assertion, a, tenant):
		return nil
	}
	return &refusal{http.StatusUnauthorized, "invalid_client", 700027, "The certificate with identifier used to sign the client assertion is not registered on application, or the assertion is not valid."}
}

// isSigned says whether an assertion (RFC 7523) is an application's: signed by the
// key of its certificate, for this token endpoint, and not expired. The caller holds
// s.mu.
func (s *Server) isSigned(assertion string, a *app, tenant string) bool {
	public, ok := a.Certificate.PublicKey.(*rsa.PublicKey)
	parts := strings.Split(assertion, ".")
	if !ok || len(parts) != 3 {
		return false
	}
	var header struct {
		Alg string `json:"alg"`
	}
	var claims struct {
		Aud string `json:"aud"`
		Iss string `json:"iss"`
		Exp int64  `json:"exp"`
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || decode(parts[0], &header) != nil || decode(parts[1], &claims) != nil {
		return false
	}
	rightAudience := strings.HasSuffix(claims.Aud, "/"+tenant+"/"+tokenPath) || strings.HasSuffix(claims.Aud, "/"+tenant+"/"+tokenPathV1)
	if claims.Iss != a.ClientID || !rightAudience || !s.now().Before(time.Unix(claims.Exp, 0)) {
		return false
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if header.Alg == "PS256" {
		return rsa.VerifyPSS(public, crypto.SHA256, digest[:], signature, nil) == nil
	}
	return header.Alg == "RS256" && rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
}

// decode decodes a part of a JWT.
func decode(part string, to any) error {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// serveIMDS answers for the metadata service.
func (s *Server) serveIMDS(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/metadata/identity/oauth2/token" {
		http.NotFound(w, r)
		return
	}
	query := r.URL.Query()
	client := query.Get("client_id")
	if f := s.take(OpIMDS, "", false); f != nil {
		if !s.wait(f, r) || f.Drop {
			s.logLogin(OpIMDS, "", client, 0, "", r)
			panic(http.ErrAbortHandler)
		}
		if f.Status != 0 {
			s.logLogin(OpIMDS, "", client, f.Status, f.Code, r)
			f.write(w)
			return
		}
	}
	refuse := func(text string) {
		s.logLogin(OpIMDS, "", client, http.StatusBadRequest, "invalid_request", r)
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_request", "error_description": text})
	}
	if r.Header.Get("Metadata") != "true" {
		refuse("Required metadata header not specified")
		return
	}
	s.mu.Lock()
	var a *app
	if at := slices.IndexFunc(s.apps, func(a *app) bool { return a.Managed && (a.ClientID == client || client == "" && a.System) }); at >= 0 {
		a = s.apps[at]
	}
	s.mu.Unlock()
	if a == nil {
		refuse("Identity not found")
		return
	}
	text, expires := s.issue(a.Tenants[0], a.ClientID, strings.TrimSuffix(query.Get("resource"), "/"))
	s.logLogin(OpIMDS, a.Tenants[0], cmp.Or(client, a.ClientID), http.StatusOK, "", r)
	lifetime := int(expires.Sub(s.now()).Seconds())
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": text, "client_id": a.ClientID, "expires_in": fmt.Sprint(lifetime), "expires_on": fmt.Sprint(expires.Unix()),
		"ext_expires_in": fmt.Sprint(lifetime), "not_before": fmt.Sprint(s.now().Unix()), "resource": query.Get("resource"), "token_type": "Bearer",
	})
}
