package config_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

func TestEnvironmentHasSafeDefaults(t *testing.T) {
	env, err := config.ReadEnvironment(environment(map[string]string{"PORT": "", "LOG_LEVEL": ""}))
	require.NoError(t, err)
	assert.Equal(t, config.Environment{HTTPAddr: "127.0.0.1:8080", RequestLimit: 100, WebSockets: 100}, env)

	env, err = config.ReadEnvironment(environment(map[string]string{
		"PORT": "8081", "HTTP_HOST": "::1", "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "JSON", "MIRTH_SERVER_ID": "node-1",
		"HTTP_TRUSTED_PROXIES": "10.1.0.0/16, ::1", "CORS_ORIGINS": "https://a.example.org,http://localhost:3000", "MIRTH_API_RATE_LIMIT": "0",
		"NODE_ENV": "production", "MIRTH_WS_MAX_CLIENTS": "5", "NODE_EXTRA_CA_CERTS": "ca.pem", "DB_HOST": "db", "OTEL_SERVICE_NAME": "x",
		"MIRTH_SHADOW_MODE": "false",
	}))
	require.NoError(t, err)
	assert.Equal(t, config.Environment{
		HTTPAddr: "[::1]:8081", LogLevel: slog.LevelDebug, LogJSON: true, ServerID: "node-1",
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::1/128")},
		CORSOrigins:    []string{"https://a.example.org", "http://localhost:3000"}, SecureCookies: true, WebSockets: 5,
		ExtraCACerts: "ca.pem", Unsupported: []string{"DB_HOST", "OTEL_SERVICE_NAME"},
	}, env)
}

func TestMistakesInTheEnvironmentAreRefusedOneLineEach(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"PORT":                       {"PORT": marker},
		"HTTP_HOST":                  {"HTTP_HOST": marker + ":80"},
		"HTTP_ALLOW_UNAUTHENTICATED": {"HTTP_ALLOW_UNAUTHENTICATED": "true"},
		"TLS_ENABLED":                {"TLS_ENABLED": marker},
		"HTTP_TRUSTED_PROXIES":       {"HTTP_TRUSTED_PROXIES": "10.1.0.1/16"},
		"CORS_ORIGINS":               {"CORS_ORIGINS": "*"},
		"MIRTH_WS_MAX_CLIENTS":       {"MIRTH_WS_MAX_CLIENTS": "0"},
		"MIRTH_ENCRYPTION_KEY":       {"MIRTH_ENCRYPTION_KEY": marker},
		"MIRTH_SHADOW_MODE":          {"MIRTH_SHADOW_MODE": "true"},
		"MIRTH_CLUSTER_REDIS_URL":    {"MIRTH_CLUSTER_REDIS_URL": "rediss://" + marker},
		"MIRTH_CLUSTER_LEASE_TTL":    {"MIRTH_CLUSTER_LEASE_TTL": marker, "MIRTH_CLUSTER_ENABLED": "yes"},
		"MIRTH_CLUSTER_POLLING_MODE": {"MIRTH_CLUSTER_POLLING_MODE": "exclusive", "MIRTH_CLUSTER_ENABLED": "1"},
		"MIRTH_API_RATE_LIMIT":       {"MIRTH_API_RATE_LIMIT": "-1"},
		"LOG_LEVEL":                  {"LOG_LEVEL": marker},
		"LOG_FORMAT":                 {"LOG_FORMAT": marker},
		"MIRTH_SERVER_ID":            {"MIRTH_SERVER_ID": marker + "/.."},
		"TLS_CERT":                   {"TLS_KEY": marker},
		"TLS_KEY":                    {"TLS_CERT": marker},
		"HTTPS_PORT":                 {"HTTPS_PORT": "8443"},
	} {
		_, err := config.ReadEnvironment(environment(vars))
		require.Error(t, err, name)
		assert.True(t, strings.HasPrefix(err.Error(), name+": "), err.Error())
		assert.NotContains(t, err.Error(), marker)
		assert.NotContains(t, err.Error(), "\n")
	}
	_, err := config.ReadEnvironment(environment(map[string]string{"PORT": "x", "LOG_FORMAT": "y", "TLS_KEY": "z"}))
	require.Error(t, err)
	assert.Len(t, strings.Split(err.Error(), "\n"), 3)
}

// In the original they mean nothing either where there is no cluster.
func TestVariablesOfClustersMeanNothingWithoutOne(t *testing.T) {
	env, err := config.ReadEnvironment(environment(map[string]string{"MIRTH_CLUSTER_LEASE_TTL": "30000", "MIRTH_CLUSTER_QUORUM_ENABLED": "true"}))
	require.NoError(t, err)
	assert.Equal(t, []string{"MIRTH_CLUSTER_LEASE_TTL", "MIRTH_CLUSTER_QUORUM_ENABLED"}, env.Unsupported)
}

func TestVariablesThatNothingAsksForAreTold(t *testing.T) {
	vars := config.NewVariables(environment(map[string]string{"TLS_KEY": "x"}))
	for _, name := range []string{"TLS_CERT", "TLS_KEY", "NODE_EXTRA_CA_CERTS", "PORT", "MIRTH_MAIL_PASSWORD"} {
		_, ok := vars.Lookup(name)
		assert.Equal(t, name == "TLS_KEY", ok)
	}
	assert.Equal(t, []string{"MIRTH_CLUSTR_SECRET", "NODE_EXTRA_CA_CERT (did you mean NODE_EXTRA_CA_CERTS?)", "TLS_CRET (did you mean TLS_CERT?)"},
		vars.Unknown([]string{
			"TLS_KEY=x", "TLS_CRET=x", "MIRTH_CLUSTR_SECRET=" + marker, "NODE_EXTRA_CA_CERT=x", "MIRTH_MAIL_PASSWORD=x", "TLS_EMPTY=",
			"PATH=/bin", "PORTS=1", "HTTP_PROXY=x", "HTTPS_PROXY=x", "MIRTH_SERVICE_HOST=10.0.0.1", "MIRTH_PORT=tcp://10.0.0.1:8080",
			"MIRTH_PORT_8080_TCP_ADDR=10.0.0.1", "MIRTH_PORT_8080_TCP=x", "MIRTH_SERVICE_PORT_HTTP=80", "odd",
		}))
}

func TestPasswordsCrossNoNetworkInTheClearUnlessTLSEndsInFront(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "::", "10.0.0.1", "engine.example.org"} {
		_, err := config.ReadEnvironment(environment(map[string]string{"HTTP_HOST": host}))
		require.ErrorContains(t, err, "HTTP_HOST: ", host)
		for _, name := range []string{"TLS_ENABLED=true", "NODE_ENV=production"} {
			name, value, _ := strings.Cut(name, "=")
			env, err := config.ReadEnvironment(environment(map[string]string{"HTTP_HOST": host, name: value}))
			require.NoError(t, err, host)
			assert.True(t, env.SecureCookies)
		}
	}
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"} {
		env, err := config.ReadEnvironment(environment(map[string]string{"HTTP_HOST": host}))
		require.NoError(t, err, host)
		assert.False(t, env.SecureCookies)
	}
}

func TestOriginsAreNamedOneByOne(t *testing.T) {
	for _, origin := range []string{"*", "https://*.example.org", "https://a.example.org/", "a.example.org", "null", "ftp://a.example.org", "https://u@a.example.org"} {
		_, err := config.ReadEnvironment(environment(map[string]string{"CORS_ORIGINS": "https://b.example.org," + origin}))
		require.ErrorContains(t, err, "CORS_ORIGINS: ", origin)
	}
}

func TestHTTPSHasAPortOfItsOwn(t *testing.T) {
	vars := map[string]string{"TLS_CERT": "a.crt", "TLS_KEY": "a.key", "HTTP_HOST": "0.0.0.0"}
	env, err := config.ReadEnvironment(environment(vars))
	require.NoError(t, err, "nothing crosses the network in the clear")
	assert.Equal(t, "0.0.0.0:8443", env.HTTPSAddr)
	assert.Equal(t, "0.0.0.0:8080", env.HTTPAddr)
	for _, port := range []string{"8080", "x", "70000"} {
		vars["HTTPS_PORT"] = port
		_, err = config.ReadEnvironment(environment(vars))
		require.ErrorContains(t, err, "HTTPS_PORT: ", port)
	}
}
