package httpsender_test

import (
	"io"
	"log" //nolint:depguard // net/http's servers log to nothing else
	"log/slog"
)

// quiet is where servers log what tests provoke.
var quiet = log.New(io.Discard, "", 0)

// everything returns a logger that leaves nothing out.
func everything(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
