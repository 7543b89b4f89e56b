package config

// promises are variables of other versions of Mirth with which somebody counts on
// something that is not done here. They stop the start.
var promises = map[string]string{
	"MIRTH_CLUSTER_REDIS_URL": "sessions and events are not shared with other nodes: each engine has its own. Unset it",
	"MIRTH_SHADOW_MODE":       "there is no shadow mode: the channels would take messages in and send them on. Unset it once they may",
}

// unsupported are variables of other versions of Mirth that change nothing here.
var unsupported = []string{
	"DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME", "DB_POOL_SIZE", "DB_POOL_MAX", "DB_QUEUE_LIMIT", "DB_ACQUIRE_TIMEOUT",
	"DB_CONNECT_TIMEOUT", "DB_DEADLOCK_RETRIES", "DB_TIMEZONE",
	"LOG_FILE", "LOG_TIMESTAMP_FORMAT",
	"MIRTH_ALLOW_DEFAULT_CREDENTIALS", "MIRTH_AUTH_MODE", "MIRTH_DEBUG_COMPONENTS", "MIRTH_MODE", "MIRTH_OTEL_PROMETHEUS_PORT",
	"MIRTH_SCRIPT_TIMEOUT", "MIRTH_SCRIPT_WALL_TIMEOUT", "MIRTH_SECRETS_PROVIDERS", "MIRTH_STARTUP_CONCURRENCY", "MIRTH_TAKEOVER_POLL_CHANNELS",
	"NODE_MLLP_PORT", "NODE_HTTP_PORT", "NODE_TLS_REJECT_UNAUTHORIZED",
	"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_SDK_DISABLED",
}

// shared are variables of clusters that share a database: who watches whom, who polls,
// and when another takes over. Nobody does here. Where MIRTH_CLUSTER_ENABLED asks for a
// cluster, somebody counts on that, and they stop the start; otherwise they mean nothing
// in the original either.
var shared = []string{
	"MIRTH_CLUSTER_HEARTBEAT_INTERVAL", "MIRTH_CLUSTER_HEARTBEAT_TIMEOUT", "MIRTH_CLUSTER_MAX_HEARTBEAT_FAILURES",
	"MIRTH_CLUSTER_SEQUENCE_BLOCK", "MIRTH_CLUSTER_POLLING_MODE", "MIRTH_CLUSTER_LEASE_TTL", "MIRTH_CLUSTER_QUORUM_ENABLED",
	"MIRTH_CLUSTER_DEAD_NODE_CLEANUP",
}

// foreign looks for all of them.
func foreign(env *Environment, get func(name, otherwise string) string, refuse func(string, ...any)) {
	for name, why := range promises {
		if value := get(name, ""); value != "" && value != "false" {
			refuse("%s: %s", name, why)
		}
	}
	clustered, _ := yes(get("MIRTH_CLUSTER_ENABLED", "")) // ReadCluster says if it is neither
	for _, name := range shared {
		switch {
		case get(name, "") == "":
		case clustered:
			refuse("%s: nodes do not watch, lead or follow each other: each engine has channels, messages and queues of its own, and takes dispatches. Unset it", name)
		default:
			env.Unsupported = append(env.Unsupported, name)
		}
	}
	for _, name := range unsupported {
		if get(name, "") != "" {
			env.Unsupported = append(env.Unsupported, name)
		}
	}
}
