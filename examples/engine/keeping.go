package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/backup"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/retention"
	"github.com/carewire/carewire/examples/engine/internal/sealed"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

// sealingKeys returns the keys of the configuration or of the environment.
func sealingKeys(cfg *config.Config, env config.Environment) (sealed.Keys, error) {
	switch given, ofEnv := cfg.Encryption.Keys.Len() > 0, env.EncryptionKeys.Len() > 0; {
	case given && ofEnv:
		return sealed.Keys{}, errors.New("MIRTH_ENCRYPTION_KEY is set, and so is encryption.keyFile: keep one of them")
	case ofEnv:
		return env.EncryptionKeys, nil
	case !given && cfg.Encryption.Unsealed == "refuse":
		return sealed.Keys{}, errors.New("encryption.unsealed is refuse, and there is no key: set encryption.keyFile or MIRTH_ENCRYPTION_KEY")
	}
	return cfg.Encryption.Keys, nil
}

// startKeeping begins to remove old messages and to make backups, until ctx ends; stop
// waits for that. The backups are nil where none are configured.
func startKeeping(ctx context.Context, cfg *config.Config, eng *engine.Engine, st *sqlite.Store, log *slog.Logger) (_ api.Backups, stop func()) {
	var running sync.WaitGroup
	old := &retention.Keeper{Store: st, Logger: log, Limits: func(id string) retention.Limits {
		var own config.Retention // of a channel that there is not any more: nothing
		for _, ch := range eng.Channels() {
			if ch.ID == id {
				own = ch.Retention
			}
		}
		r := own.Over(cfg.Retention)
		return retention.Limits{Messages: r.Messages(), DeadLetters: r.DeadLetters()}
	}}
	running.Go(func() { old.Run(ctx) })
	if cfg.Backup.Directory == "" {
		return nil, running.Wait
	}
	copies := backup.New(st, cfg.Backup.Directory, cfg.Backup.Interval, cfg.Backup.Keep, log)
	running.Go(func() { copies.Run(ctx) })
	return copies, running.Wait
}

// restore puts a backup into the data directory.
func restore(ctx context.Context, f flags, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	dir, err := dataDir(f, lookup)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	sum, err := backup.Sum(f.restore)
	var done sqlite.Restored
	if err == nil {
		done, err = sqlite.Restore(ctx, f.restore, sum, dir)
	}
	if err != nil {
		fmt.Fprintln(stderr, "engine:", err)
		return exitError
	}
	verified := "There is no file with its SHA-256 beside it: hold this against where it is written down."
	if sum != "" {
		verified = "It is the one in the file beside it."
	}
	fmt.Fprintf(stdout, `Restored the store in %s. The backup's SHA-256 is
%s
%s
Deliveries that wait: %d. All are marked: they may have been made after the backup.
What was acknowledged after the backup is not there: ask the senders for it.
`, dir, done.SHA256, verified, done.Queued)
	return exitOK
}
