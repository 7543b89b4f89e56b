package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/backup"
)

// Backups makes copies of the store.
type Backups interface {
	Make(ctx context.Context) (backup.Copy, error)
}

type madeBackup struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	Made   string `json:"made"`
}

func (s *Server) backupRoutes() []route {
	return []route{
		{method: "POST", pattern: "/api/server/_backup", access: admins, audit: "server.backup", handler: s.makeBackup, gives: madeBackup{}, refuses: []int{http.StatusConflict}, summary: "Copy the store now; the answer comes when the copy is complete, with its file's name, bytes and SHA-256"},
	}
}

// makeBackup answers when the copy is on disk, which may take long. A client that goes
// away does not end it; the end of the engine does.
func (s *Server) makeBackup(w http.ResponseWriter, r *http.Request) {
	if s.backups == nil {
		conflict(w, "No directory for backups is configured: backup.directory")
		return
	}
	deadlines := http.NewResponseController(w)
	_ = deadlines.SetReadDeadline(time.Time{}) // a recorder in a test has none
	_ = deadlines.SetWriteDeadline(time.Time{})
	made, err := s.backups.Make(context.WithoutCancel(r.Context()))
	switch {
	case errors.Is(err, backup.ErrRuns):
		conflict(w, "Another backup is being made")
		return
	case err != nil:
		s.log.ErrorContext(r.Context(), "no backup could be made", "err", err)
		unavailable(w, "The backup could not be made: the server's log says why")
		return
	}
	note(r.Context(), "file", made.Name)
	note(r.Context(), "bytes", strconv.FormatInt(made.Bytes, 10))
	note(r.Context(), "sha256", made.SHA256)
	answer(w, http.StatusOK, madeBackup{Name: made.Name, Bytes: made.Bytes, SHA256: made.SHA256, Made: isoTime(made.Made)})
}
