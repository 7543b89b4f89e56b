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

func loadAlerts(t *testing.T, alerts, expected string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.yaml")
	text := "alerts: " + alerts + "\nchannels:\n" +
		"  - {id: ops, source: {type: channel}, destinations: [{name: f, type: file, directory: d}]}\n" +
		"  - {id: adt, expected: " + expected + ", source: {type: tcp, host: 127.0.0.1, port: 6661}, destinations: [{name: f, type: file, directory: e}]}\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return config.Load(path, environment(nil))
}

func TestAlertsHaveDefaultsAndCalendars(t *testing.T) {
	t.Parallel()
	cfg, err := loadAlerts(t, "{channel: ops}", "{within: 30m, days: mon-fri, hours: 07:00-19:00, zone: Europe/London}")
	require.NoError(t, err)
	assert.Equal(t, &config.Alerts{Channel: "ops", CheckInterval: 15 * time.Second, QueueingAfter: 5 * time.Minute, CertificateDays: 30, DiskFreePercent: 10}, cfg.Alerts)
	expected := cfg.Channels[1].Expected
	assert.Equal(t, 30*time.Minute, expected.Within)
	_, open := expected.Calendar.Open(time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC))
	assert.True(t, open)
	_, open = expected.Calendar.Open(time.Date(2026, 12, 5, 8, 0, 0, 0, time.UTC))
	assert.False(t, open)
	assert.Nil(t, cfg.Channels[0].Expected)
}

func TestMistakesInAlertsAreReported(t *testing.T) {
	t.Parallel()
	good := "{within: 30m}"
	for _, tt := range []struct{ alerts, expected, want string }{
		{"{}", good, "alerts.channel: is missing"},
		{"{channel: nowhere}", good, "alerts.channel: no channel has this id"},
		{"{channel: adt}", good, "alerts.channel: is a channel whose source is not of type channel"},
		{"{channel: ops, queueingAfter: 10ms}", good, "alerts.queueingAfter: must be at least 1s"},
		{"{channel: ops, checkInterval: 0s}", good, "alerts.checkInterval: must be at least 1s"},
		{"{channel: ops, certificateDays: -1}", good, "alerts.certificateDays: must be at least 1"},
		{"{channel: ops, diskFreePercent: 91}", good, "alerts.diskFreePercent: must be from 1 to 90"},
		{"{channel: ops, mail: x}", good, "alerts.mail: not a key here"},
		{"{channel: ops}", "{}", "channels[1].expected.within: is the longest time without a message"},
		{"{channel: ops}", "{within: 30m, days: weekdays}", "channels[1].expected.days: is neither days"},
		{"{channel: ops}", "{within: 30m, hours: 7-19}", "channels[1].expected.hours: is not a range"},
		{"{channel: ops}", "{within: 30m, zone: Mars}", "channels[1].expected.zone: is not a time zone"},
	} {
		_, err := loadAlerts(t, tt.alerts, tt.expected)
		require.ErrorContains(t, err, tt.want)
	}
}

// What docs/watching.md shows is a configuration.
func TestTheAlertsOfTheDocumentationAreRead(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "watching.md"))
	require.NoError(t, err)
	for block := range strings.SplitSeq(string(text), "```yaml\n") {
		if !strings.HasPrefix(block, "alerts:") {
			continue
		}
		block, _, _ = strings.Cut(block, "```")
		path := filepath.Join(t.TempDir(), "engine.yaml")
		require.NoError(t, os.WriteFile(path, []byte(block), 0o600))
		cfg, err := config.Load(path, environment(map[string]string{"CHAT_HOOK": "T0123"}))
		require.NoError(t, err)
		assert.Equal(t, "ops", cfg.Alerts.Channel)
		return
	}
	t.Fatal("there is none")
}
