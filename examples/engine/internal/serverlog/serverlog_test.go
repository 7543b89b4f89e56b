package serverlog_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/examples/engine/internal/serverlog"
)

func TestLatestLinesAreKeptWithWhereTheyComeFrom(t *testing.T) {
	t.Parallel()
	l := serverlog.New(slog.LevelInfo)
	log := slog.New(l.Handler()).With("channel", "adt")
	_, more := l.Since(0)
	log.Debug("too fine")
	log.Warn("destination fails", "err", errors.New("refused"), slog.Group("peer", "port", 1))
	select {
	case <-more:
	default:
		t.Fatal("nobody is told")
	}
	entries, _ := l.Since(0)
	assert.Len(t, entries, 1)
	assert.Equal(t, slog.LevelWarn, entries[0].Level)
	assert.Equal(t, "serverlog_test", entries[0].Category)
	assert.NotZero(t, entries[0].Line)
	assert.Equal(t, "destination fails channel=adt err=refused peer=map[port:1]", entries[0].Message)

	for range 3000 {
		log.Info("long", "text", strings.Repeat("x", 5000))
	}
	assert.EqualValues(t, 3001, l.Last())
	entries, _ = l.Since(0)
	assert.LessOrEqual(t, len(entries), 1000)
	assert.Greater(t, len(entries), 800)
	assert.LessOrEqual(t, len(entries[0].Message), 2048+len("…"))
	entries, _ = l.Since(2999)
	assert.Len(t, entries, 2)
	entries, _ = l.Since(l.Last())
	assert.Empty(t, entries)
}
