package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
)

// someKey is one that nothing was ever sealed with.
const someKey = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// keep is good with what the engine keeps, and how, above it.
func keep(t *testing.T, above, ofChannel string) (*config.Config, string, error) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keys"), []byte(someKey), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "open"), []byte(someKey), 0o600))
	require.NoError(t, os.Chmod(filepath.Join(dir, "open"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad"), []byte("a:"+marker), 0o600))
	path := filepath.Join(dir, "engine.yaml")
	text := above + strings.Replace(good, "    name: MLLPS Receiver\n", "    name: MLLPS Receiver\n"+ofChannel, 1)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	cfg, err := config.Load(path, environment(nil))
	return cfg, dir, err
}

func TestWhatIsKeptAndHow(t *testing.T) {
	cfg, dir, err := keep(t, "retention: {days: 30, deadLetterDays: 90}\nbackup: {directory: copies, interval: 6h}\nencryption: {keyFile: keys, unsealed: refuse}\n",
		"    retention: {days: 0}\n")
	require.NoError(t, err)
	assert.Equal(t, config.Backup{Directory: filepath.Join(dir, "copies"), Interval: 6 * time.Hour, Keep: 7}, cfg.Backup)
	assert.Equal(t, "keys a", cfg.Encryption.Keys.String())
	assert.Equal(t, "refuse", cfg.Encryption.Unsealed)
	own, others := cfg.Channels[0].Retention.Over(cfg.Retention), cfg.Channels[1].Retention.Over(cfg.Retention)
	assert.Zero(t, own.Messages(), "this channel's are kept for ever")
	assert.Equal(t, 30*24*time.Hour, others.Messages())
	assert.Equal(t, 90*24*time.Hour, others.DeadLetters())

	cfg, _, err = keep(t, "", "")
	require.NoError(t, err)
	assert.Zero(t, cfg.Channels[0].Retention.Over(cfg.Retention).Messages(), "nothing is removed unless that is asked for")
	assert.Empty(t, cfg.Backup.Directory)
	assert.Zero(t, cfg.Encryption.Keys.Len())
}

func TestMistakesInWhatIsKept(t *testing.T) {
	for _, tt := range []struct{ above, ofChannel, key, text string }{
		{"retention: {days: -1}\n", "", "retention.days", "between 0"},
		{"retention: {days: 40000}\n", "", "retention.days", "36500"},
		{"retention: {days: 30d}\n", "", "retention.days", "whole number"},
		{"retention: {days: 30, deadLetterDays: -9}\n", "", "retention.deadLetterDays", "between 0"},
		{"retention: {deadLetterDays: 9}\n", "", "retention.deadLetterDays", "set days, too"},
		{"retention: {days: 30, deadLetterDays: 9}\n", "", "retention", "must not be less"},
		{"retention: {months: 3}\n", "", "retention.months", "not a key here"},
		{"retention: {days: 3, deadLetterDays: 9}\n", "    retention: {days: 10}\n", "channels[0].retention", "must not be less"},
		{"", "    retention: {deadLetterDays: 10}\n", "channels[0].retention.deadLetterDays", "set days, too"},
		{"backup: {interval: 1h}\n", "", "backup.directory", "is missing"},
		{"backup: {directory: data}\n", "", "backup.directory", "is the data directory"},
		{"backup: {directory: b, interval: 1s}\n", "", "backup.interval", "between 1m0s"},
		{"backup: {directory: b, keep: 0}\n", "", "backup.keep", "between 1"},
		{"encryption: {keyFile: none}\n", "", "encryption.keyFile", "no such file"},
		{"encryption: {keyFile: open}\n", "", "encryption.keyFile", "mode 0644"},
		{"encryption: {keyFile: bad}\n", "", "encryption.keyFile", "line 1: is not 32 random bytes"},
		{"encryption: {keyFile: keys, unsealed: perhaps}\n", "", "encryption.unsealed", "one of accept, refuse"},
	} {
		_, _, err := keep(t, tt.above, tt.ofChannel)
		var problems config.LineErrors
		require.ErrorAs(t, err, &problems, "%v", tt)
		require.Len(t, problems, 1, "%v", err)
		assert.Equal(t, tt.key, problems[0].Key, "%v", err)
		assert.Contains(t, problems[0].Text, tt.text)
		if tt.above != "" && tt.ofChannel == "" {
			assert.Equal(t, 1, problems[0].Line)
		} else {
			assert.Greater(t, problems[0].Line, 1)
		}
		assert.NotContains(t, err.Error(), marker)
	}
}

func TestEncryptionKeyOfTheEnvironment(t *testing.T) {
	env, err := config.ReadEnvironment(environment(map[string]string{"MIRTH_ENCRYPTION_KEY": someKey}))
	require.NoError(t, err)
	assert.Equal(t, "keys a", env.EncryptionKeys.String())
}
