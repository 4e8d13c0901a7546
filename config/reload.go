package config

import "reflect"

// Pinned returns the sections in which next differs from c and which a running
// process cannot take over: they wait for a restart. Rules are never among
// them, since SIGHUP applies those.
func (c *Config) Pinned(next *Config) []string {
	var changed []string
	for _, part := range []struct {
		name      string
		old, next any
	}{
		{"listen", c.Listen, next.Listen},
		{"admin", c.Admin, next.Admin},
		{"etcd", c.Etcd, next.Etcd},
		{"keks", c.KEKs, next.KEKs},
		{"keyring", c.Keyring, next.Keyring},
		{"allowMethods", c.AllowMethods, next.AllowMethods},
		{"limits", c.Limits, next.Limits},
		{"outage", c.Outage, next.Outage},
		{"audit", c.Audit, next.Audit},
		{"log", c.Log, next.Log},
		{"shutdownGrace", c.ShutdownGrace, next.ShutdownGrace},
	} {
		if !reflect.DeepEqual(part.old, part.next) {
			changed = append(changed, part.name)
		}
	}
	return changed
}
