package doctor

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcdseal/etcdseal/config"
	"github.com/etcdseal/etcdseal/crypto/envelope"
)

// sealed is an envelope by a data key that nobody has.
var sealed = "\x00es\x01" + strings.Repeat("\x07", envelope.Overhead-4) + "ciphertext"

// Each finding about a rule, and about what is there under it, is there when there is
// reason for it, and not otherwise.
func TestRules(t *testing.T) {
	type values map[string]string
	deny := func(c *config.Config) { c.Rules[0].Plaintext = config.PlaintextDeny }
	open := func(c *config.Config) { c.Rules[0].Seal = false }
	for name, r := range map[string]struct {
		values values
		change func(*config.Config)
		level  Level
		texts  []string
	}{
		"plaintext":            {values{"a": "hunter2", "b": "hunter3"}, nil, Warning, []string{"2 keys: 0 sealed, 2 plaintext", "etcdseal encrypt"}},
		"plaintext, denied":    {values{"a": "hunter2"}, deny, Problem, []string{"1 plaintext", "plaintext: deny makes reading those fail"}},
		"plaintext, wanted":    {values{"a": "hunter2"}, open, OK, []string{"1 plaintext", "seal: false"}},
		"sealed":               {values{"a": sealed, "b": ""}, nil, OK, []string{"2 keys: 1 sealed, 0 plaintext, 1 empty", "set plaintext: deny"}},
		"sealed, not wanted":   {values{"a": sealed}, open, Warning, []string{"1 sealed", "set seal: true", "etcdseal decrypt"}},
		"broken":               {values{"a": "\x00es\x01short"}, nil, Problem, []string{"1 values begin as envelopes do", prefix + "a"}},
		"kms":                  {values{"a": "k8s:enc:kms:v2:my-kms:ciphertext"}, nil, Warning, []string{"EncryptionConfiguration", "kms v2, plugin my-kms (1)", "identity: {}"}},
		"aescbc":               {values{"a": "k8s:enc:aescbc:v1:key1:c", "b": "k8s:enc:aescbc:v1:key1:d"}, nil, Warning, []string{"aescbc, key key1 (2)"}},
		"aesgcm":               {values{"a": "k8s:enc:aesgcm:v1:key2:c"}, nil, Warning, []string{"aesgcm, key key2 (1)"}},
		"secretbox":            {values{"a": "k8s:enc:secretbox:v1:key3:c"}, nil, Warning, []string{"secretbox, key key3 (1)"}},
		"strange provider":     {values{"a": "k8s:enc:\x1b[2J"}, nil, Warning, []string{"an unknown provider (1)"}},
		"kms, denied":          {values{"a": "k8s:enc:kms:v2:my-kms:ciphertext"}, deny, Problem, []string{"deny takes for plaintext"}},
		"only some looked at":  {many(60), nil, Warning, []string{"60 keys, of which the first 50 were looked at", "50 plaintext"}},
		"no slash":             {values{"": "x"}, func(c *config.Config) { c.Rules[0].Prefix = "/registry/secrets" }, Warning, []string{"does not end with a slash", "0 keys are"}},
		"no slash, and others": {nil, func(c *config.Config) { c.Rules[0].Prefix = "/other" }, Warning, []string{"does not end with a slash", "1 key is", "/other/"}},
		"no recovery":          {nil, func(c *config.Config) { c.Rules[0].RecoveryKEKs = nil }, OK, []string{"k alone opens"}},
		"overlap": {nil, func(c *config.Config) {
			c.Rules = append(c.Rules, config.Rule{Prefix: prefix + "ns/", KEK: "k", Seal: true})
		}, OK, []string{prefix, "overlaps " + prefix + "ns/", "longer prefix wins"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.put("/otherwise", "a key beside")
			sample := func(p Config) []Finding {
				p.MaxSampled = 50
				return runAfterMembers(t, p, func(d *doctor) check { return d.contents })
			}
			wantsNot(t, sample(l.patient()), Rules, r.level, r.texts...)
			for key, value := range r.values {
				l.put(prefix+key, value)
			}
			found := sample(l.patient(func(c *config.Config) {
				if r.change != nil {
					r.change(c)
				}
			}))
			wants(t, found, Rules, r.level, r.texts...)
			if text := shown(found); strings.Contains(text, "hunter") || strings.Contains(text, "ciphertext") || strings.Contains(text, "\x1b") {
				t.Errorf("a value is shown:\n%s", text)
			}
		})
	}
}

func many(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[strconv.Itoa(1000+i)] = "hunter2"
	}
	return all
}

// A key is counted under its own rule and no other.
func TestSpans(t *testing.T) {
	for name, r := range map[string]struct {
		prefixes []string // the first is asked for
		want     []span
	}{
		"alone":        {[]string{"/a/"}, []span{{"/a/", "/a0"}}},
		"one inside":   {[]string{"/a/", "/a/m/"}, []span{{"/a/", "/a/m/"}, {"/a/m0", "/a0"}}},
		"two inside":   {[]string{"/a/", "/a/x/", "/a/m/"}, []span{{"/a/", "/a/m/"}, {"/a/m0", "/a/x/"}, {"/a/x0", "/a0"}}},
		"inside these": {[]string{"/a/", "/a/m/", "/a/m/n/"}, []span{{"/a/", "/a/m/"}, {"/a/m0", "/a0"}}},
		"the inner":    {[]string{"/a/m/", "/a/"}, []span{{"/a/m/", "/a/m0"}}},
		"neighbours":   {[]string{"/a", "/a/", "/a0"}, []span{{"/a", "/a/"}, {"/a1", "/b"}}},
		"at the end":   {[]string{"\xff", "\xff\xff"}, []span{{"\xff", "\xff\xff"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &config.Config{}
			for _, p := range r.prefixes {
				c.Rules = append(c.Rules, config.Rule{Prefix: p})
			}
			d := &doctor{Config: Config{Config: c}}
			if diff := cmp.Diff(r.want, d.spans(r.prefixes[0]), cmp.AllowUnexported(span{})); diff != "" {
				t.Errorf("spans differ (-want +got):\n%s", diff)
			}
		})
	}
}
