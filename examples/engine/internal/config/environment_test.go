package config_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

func TestEnvironmentHasSafeDefaults(t *testing.T) {
	env, err := config.ReadEnvironment(environment(map[string]string{"PORT": "", "LOG_LEVEL": ""}))
	require.NoError(t, err)
	assert.Equal(t, config.Environment{HTTPAddr: "127.0.0.1:8080"}, env)

	env, err = config.ReadEnvironment(environment(map[string]string{
		"PORT": "8081", "HTTP_HOST": "::1", "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "JSON", "MIRTH_SERVER_ID": "node-1",
	}))
	require.NoError(t, err)
	assert.Equal(t, config.Environment{HTTPAddr: "[::1]:8081", LogLevel: slog.LevelDebug, LogJSON: true, ServerID: "node-1"}, env)
}

func TestMistakesInTheEnvironmentAreRefusedOneLineEach(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"PORT":                       {"PORT": marker},
		"HTTP_HOST":                  {"HTTP_HOST": marker + ":80"},
		"HTTP_ALLOW_UNAUTHENTICATED": {"HTTP_ALLOW_UNAUTHENTICATED": "yes" + marker},
		"LOG_LEVEL":                  {"LOG_LEVEL": marker},
		"LOG_FORMAT":                 {"LOG_FORMAT": marker},
		"MIRTH_SERVER_ID":            {"MIRTH_SERVER_ID": marker + "/.."},
		"TLS_CERT":                   {"TLS_CERT": marker},
		"TLS_KEY":                    {"TLS_KEY": marker},
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

func TestAPIWithoutUsersStaysOnThisMachineUnlessTold(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "::", "10.0.0.1", "engine.example.org"} {
		_, err := config.ReadEnvironment(environment(map[string]string{"HTTP_HOST": host}))
		require.ErrorContains(t, err, "HTTP_ALLOW_UNAUTHENTICATED=true", host)
		_, err = config.ReadEnvironment(environment(map[string]string{"HTTP_HOST": host, "HTTP_ALLOW_UNAUTHENTICATED": "true"}))
		assert.NoError(t, err, host)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"} {
		_, err := config.ReadEnvironment(environment(map[string]string{"HTTP_HOST": host}))
		assert.NoError(t, err, host)
	}
}
