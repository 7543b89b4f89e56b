package config

import (
	"time"

	"github.com/carewire/carewire/examples/engine/internal/sealed"
)

// Retention is how long messages are kept. A message with a delivery that waits is
// kept whatever its age.
type Retention struct {
	// Days after which a message is removed that all its destinations have; counted
	// from when it was received. 0: never. nil: the next wider setting, and in the end
	// never. At most 36,500.
	Days *int `yaml:"days"`
	// DeadLetterDays after which a message is removed although there are dead letters
	// of it; counted from when the last of them was set aside. Not less than Days. 0,
	// nil: as Days.
	DeadLetterDays *int `yaml:"deadLetterDays"`
}

// maxDays is a hundred years.
const maxDays = 36_500

// Over returns r with what is not set taken from wider.
func (r Retention) Over(wider Retention) Retention {
	if r.Days == nil {
		r.Days = wider.Days
	}
	if r.DeadLetterDays == nil {
		r.DeadLetterDays = wider.DeadLetterDays
	}
	return r
}

// Messages and DeadLetters are the times that r means; zero: for ever.
func (r Retention) Messages() time.Duration { return days(r.Days) }

// DeadLetters is how long dead letters are kept after they were set aside.
func (r Retention) DeadLetters() time.Duration { return days(r.DeadLetterDays) }

func days(n *int) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * 24 * time.Hour
}

// Backup is where and when the store is copied.
type Backup struct {
	// Directory is where the copies are. It should be on another disk than dataDir.
	Directory string `yaml:"directory"`
	// Interval between two copies. 0 and unset: only when an admin asks for one. At
	// least a minute.
	Interval time.Duration `yaml:"interval"`
	// Keep is how many copies are kept; with one more the oldest is removed. 0 and
	// unset: 7. At most 10,000.
	Keep int `yaml:"keep"`
}

const (
	defaultBackups    = 7
	maxBackups        = 10_000
	minBackupInterval = time.Minute
	maxBackupInterval = 366 * 24 * time.Hour
)

func (b *Backup) setDefaults() { setDefault(&b.Keep, defaultBackups) }

// Encryption is with what the content of messages is sealed in the store.
type Encryption struct {
	// KeyFile has one key a line, id:base64; the first seals, the others open what
	// they have sealed. Empty: MIRTH_ENCRYPTION_KEY, and without that nothing is sealed.
	KeyFile string `yaml:"keyFile"`
	// Unsealed is what happens to what is in the store without having been sealed:
	// "accept", the default, reads it; "refuse" treats it as tampered with.
	Unsealed string `yaml:"unsealed"`

	// Keys is what KeyFile holds.
	Keys sealed.Keys
}

// retention checks how long something is kept, at key, within what is wider.
func (d *decoder) retention(key string, own, wider Retention) {
	at := join(key, "retention")
	ok := true
	for name, n := range map[string]*int{"days": own.Days, "deadLetterDays": own.DeadLetterDays} {
		if n != nil && (*n < 0 || *n > maxDays) {
			d.at(join(at, name), "must be between 0, which is for ever, and %d", maxDays)
			ok = false
		}
	}
	if !ok || !d.cleanUnder(at) || own == (Retention{}) {
		return
	}
	in := own.Over(wider)
	switch {
	case in.DeadLetters() == 0 || in.Messages() > 0 && in.DeadLetters() >= in.Messages():
	case in.Messages() == 0 && own.DeadLetterDays != nil:
		d.at(join(at, "deadLetterDays"), "has no effect while messages are kept for ever: set days, too")
	case in.Messages() > 0:
		d.at(at, "would remove dead letters before other messages: deadLetterDays must not be less than days")
	}
}

// backup checks where copies go.
func (d *decoder) backup(cfg *Config) {
	b := &cfg.Backup
	if !d.has("backup") || !d.cleanUnder("backup") {
		return
	}
	switch {
	case b.Directory == "":
		d.at("backup.directory", "is missing: name a directory, best on another disk")
	case b.Directory == d.resolve(cfg.DataDir) || !d.has("dataDir") && b.Directory == d.resolve(defaultDataDir):
		d.at("backup.directory", "is the data directory: whatever happens to the one happens to the other")
	}
	if d.has("backup.interval") && (b.Interval < minBackupInterval || b.Interval > maxBackupInterval) {
		d.at("backup.interval", "must be between %v and %v; without the key backups are made when an admin asks for one", minBackupInterval, maxBackupInterval)
	}
	if d.has("backup.keep") && (b.Keep < 1 || b.Keep > maxBackups) {
		d.at("backup.keep", "must be between 1 and %d", maxBackups)
	}
}

// encryption reads the keys.
func (d *decoder) encryption(e *Encryption) {
	const at = "encryption.keyFile"
	d.oneOf("encryption.unsealed", e.Unsealed, "accept", "refuse")
	switch {
	case !d.has(at) || !d.clean(at):
	case e.KeyFile == "":
		d.at(at, "is empty: name the file of the keys, or remove the key")
	default:
		var err error
		if e.Keys, err = sealed.ReadKeys(e.KeyFile); err != nil {
			d.at(at, "%v", err)
		}
	}
}
