package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

const oneChannel = "channels: [{id: a, source: {type: channel}, destinations: [{name: f, type: file, directory: d}]}]\n"

func loadUsers(t *testing.T, users string) (*config.Config, error) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("correct horse battery\n"), 0o600))
	path := filepath.Join(dir, "engine.yaml")
	require.NoError(t, os.WriteFile(path, []byte("users:\n"+users+oneChannel), 0o600))
	return config.Load(path, environment(map[string]string{"SECRET": "staple from env"}))
}

func TestUsersAreReadWithTheirPasswords(t *testing.T) {
	t.Parallel()
	cfg, err := loadUsers(t, `  - {name: admin, role: admin, passwordFile: secret}
  - {name: ci, role: operator, password: "${SECRET}"}
  - {name: old, role: viewer, passwordHash: AQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg==}
`)
	require.NoError(t, err)
	assert.Equal(t, config.User{Name: "admin", Role: "admin", Password: "correct horse battery", PasswordFile: "secret"}, cfg.Users[0])
	assert.Equal(t, "staple from env", cfg.Users[1].Password)
	assert.NotEmpty(t, cfg.Users[2].PasswordHash)
}

func TestMistakesInUsersAreReportedWithoutTheirPasswords(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"{role: admin, passwordFile: secret}":                                    "users[0].name: is missing",
		"{name: a b, role: admin, passwordFile: secret}":                         "users[0].name: may have letters",
		"{name: a, passwordFile: secret}":                                        "users[0].role: is missing",
		"{name: a, role: root, passwordFile: secret}":                            "users[0].role: is not a role",
		"{name: a, role: admin}":                                                 "users[0].passwordFile: is missing",
		"{name: a, role: admin, passwordFile: secret, password: " + marker + "}": "users[0].passwordFile: excludes password",
		"{name: a, role: admin, password: Q7}":                                   "users[0].password: a password has 12 to 1024 bytes",
		"{name: a, role: admin, passwordFile: nowhere}":                          "users[0].passwordFile: open",
		"{name: a, role: admin, passwordHash: " + marker + "}":                   "users[0].passwordHash: is not the hash of a password",
		"{name: a, role: admin, passwordHash: '$argon2id$v=19$m=99999999,t=1,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA'}": "users[0].passwordHash: asks for more work",
	} {
		_, err := loadUsers(t, "  - "+line+"\n")
		require.ErrorContains(t, err, want, line)
		assert.NotContains(t, err.Error(), marker)
		assert.NotContains(t, err.Error(), "Q7")
		assert.Len(t, strings.Split(err.Error(), "\n"), 1, err.Error())
	}
	_, err := loadUsers(t, "  - {name: a, role: admin, passwordFile: secret}\n  - {name: A, role: admin, passwordFile: secret}\n")
	require.ErrorContains(t, err, "users[1].name: is the same as users[0].name")
}
