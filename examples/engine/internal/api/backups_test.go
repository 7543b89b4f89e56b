package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/backup"
)

// copier makes one copy, or fails.
type copier struct{ err error }

func (c *copier) Make(context.Context) (backup.Copy, error) {
	return backup.Copy{Name: "engine-x.db", Bytes: 4096, SHA256: "ab12", Made: time.UnixMilli(1000)}, c.err
}

func TestAnAdminMakesABackupAndTheAuditLogHasIt(t *testing.T) {
	book, source := new(notebook), new(copier)
	s := serve(t, &fake{}, api.Options{Audit: book, Backups: source})
	admin := as(t, s, "admin")
	w := request(s, "POST", "/api/server/_backup", admin)
	require.Equal(t, 200, w.Code, "%s", w.Body)
	assert.JSONEq(t, `{"name":"engine-x.db","bytes":4096,"sha256":"ab12","made":"1970-01-01T00:00:01.000Z"}`, w.Body.String())
	last := book.events[len(book.events)-1]
	assert.Equal(t, "server.backup", last.Action)
	assert.Equal(t, audit.Success, last.Outcome)
	assert.Equal(t, "admin", last.User)
	assert.Equal(t, map[string]string{"status": "200", "file": "engine-x.db", "bytes": "4096", "sha256": "ab12"}, last.Attributes)

	source.err = backup.ErrRuns
	assert.Equal(t, 409, request(s, "POST", "/api/server/_backup", admin).Code)
	source.err = errors.New("/secret/path: disk full")
	w = request(s, "POST", "/api/server/_backup", admin)
	assert.Equal(t, 503, w.Code)
	assert.NotContains(t, w.Body.String(), "/secret/path")
	assert.Equal(t, audit.Failure, book.events[len(book.events)-1].Outcome)

	assert.Equal(t, 403, request(s, "POST", "/api/server/_backup", as(t, s, "operator")).Code)
	book.err = errors.New("no space")
	source.err = nil
	assert.Equal(t, 503, request(s, "POST", "/api/server/_backup", admin).Code, "not without a record")
}

func TestWithoutADirectoryNoBackupIsMade(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	w := request(s, "POST", "/api/server/_backup", as(t, s, "admin"))
	assert.Equal(t, 409, w.Code)
	assert.Contains(t, w.Body.String(), "backup.directory")
}
