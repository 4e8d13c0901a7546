package emulator

import "strings"

// policy is a key's rotation policy, as it is in JSON.
type policy struct {
	ID              string            `json:"id,omitempty"`
	LifetimeActions []lifetimeAction  `json:"lifetimeActions"`
	Attributes      *policyAttributes `json:"attributes,omitempty"`
}

type lifetimeAction struct {
	Trigger struct {
		TimeAfterCreate  string `json:"timeAfterCreate,omitempty"`
		TimeBeforeExpiry string `json:"timeBeforeExpiry,omitempty"`
	} `json:"trigger"`
	Action struct {
		Type string `json:"type"`
	} `json:"action"`
}

type policyAttributes struct {
	ExpiryTime string `json:"expiryTime,omitempty"`
	Created    int64  `json:"created,omitempty"`
	Updated    int64  `json:"updated,omitempty"`
}

// withNotify adds the notification that the service adds by itself.
func (p policy) withNotify() policy {
	for _, a := range p.LifetimeActions {
		if strings.EqualFold(a.Action.Type, "Notify") {
			return p
		}
	}
	var notify lifetimeAction
	notify.Action.Type = "Notify"
	notify.Trigger.TimeBeforeExpiry = "P30D"
	p.LifetimeActions = append(p.LifetimeActions, notify)
	return p
}

func (p policy) rotateAfter() string {
	for _, a := range p.LifetimeActions {
		if strings.EqualFold(a.Action.Type, "Rotate") {
			return a.Trigger.TimeAfterCreate + a.Trigger.TimeBeforeExpiry
		}
	}
	return ""
}
