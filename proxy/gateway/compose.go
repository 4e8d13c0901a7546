package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// undecided is what etcd says for a cluster's version that it does not know.
const undecided = "not_decided"

// compose answers for an etcd that serves no HTTP where the proxy connects
// (--listen-client-http-urls), from what it says over gRPC.
func (h *Handler) compose(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if h.cfg.Token != nil {
		token, err := h.cfg.Token(ctx)
		if err != nil {
			unavailable(w, r, err)
			return
		}
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
		}
	}
	switch r.URL.Path {
	case "/version":
		h.composeVersion(ctx, w, r)
	case "/health":
		query := r.URL.Query()
		answerHealth(w, h.unhealthy(ctx, query["exclude"], query.Get("serializable") == "true"))
	default:
		http.Error(w, "etcdseal: "+errNoHTTP.Error()+"; ask it where it does (--listen-client-http-urls, --listen-metrics-urls)", http.StatusNotImplemented)
	}
}

// composeVersion writes what /version has. etcd does not say its cluster's version over
// gRPC; from 3.6 on its storage has the same.
func (h *Handler) composeVersion(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	st, err := pb.NewMaintenanceClient(h.cfg.Proxy).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		unavailable(w, r, err)
		return
	}
	v := version.Versions{Server: st.GetVersion(), Cluster: undecided, Storage: "unknown"}
	if storage := st.GetStorageVersion(); storage != "" {
		v.Cluster, v.Storage = storage, storage
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// unhealthy says why etcd is not healthy, in the words of its own /health
// (etcdhttp/health.go); empty if it is.
func (h *Handler) unhealthy(ctx context.Context, excluded []string, serializable bool) string {
	alarms, err := pb.NewMaintenanceClient(h.cfg.Proxy).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	if err != nil {
		return "ALARM ERROR:" + err.Error()
	}
	for _, a := range alarms.GetAlarms() {
		if name := a.GetAlarm().String(); !slices.Contains(excluded, name) {
			return "ALARM " + name
		}
	}
	// Who may not read the key has been answered by the cluster all the same.
	_, err = pb.NewKVClient(h.cfg.Proxy).Range(ctx, &pb.RangeRequest{Key: []byte("health"), KeysOnly: true, Limit: 1, Serializable: serializable})
	if err != nil && status.Code(err) != codes.PermissionDenied {
		return "RANGE ERROR:" + status.Convert(err).Message()
	}
	return ""
}

// answerHealth writes an answer of /health.
func answerHealth(w http.ResponseWriter, reason string) {
	health := "true"
	if reason != "" {
		health = "false"
	}
	b, _ := json.Marshal(struct { // strings can always be marshalled
		Health string `json:"health"`
		Reason string `json:"reason"`
	}{health, reason})
	if reason != "" {
		http.Error(w, string(b), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write(b) // the client may be gone
}
