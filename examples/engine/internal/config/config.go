// Package config reads the engine's configuration: one YAML file for what flows
// where, and the environment for how the process itself runs.
//
// It is strict, because a mistake in it is a message that goes astray later: an
// unknown or repeated key, a value of the wrong type, a TLS setting that cannot
// be honoured, a certificate that cannot be read, a loop of channels are all
// refused, all of them at once, each with its line and with what to do:
//
//	engine.yaml:14: channels[0].source.prot: not a key here; did you mean port?
//
// # Values from elsewhere
//
// In any value, ${NAME} stands for the environment variable NAME. It is
// replaced once, when the file is read; what comes out is never looked at
// again, whatever it holds. $${ stands for ${ itself, and ${message.…} is left
// for the connectors that fill it in per message. A secret (passphrase,
// keyPassphrase, password, hashSecret, passcode, keyStorePW, keyPW, trustStorePW) may also be written as file:/run/secrets/name: the file's
// content without its last line break. No value is ever printed, only keys.
//
// Relative paths are relative to the directory of the configuration file.
package config

import (
	"time"

	"github.com/carewire/carewire/examples/engine/internal/users"
)

// Config is a configuration without mistakes, all values in place.
type Config struct {
	// DataDir is where the embedded store and the development certificates are.
	// Default: "data" beside the configuration file.
	DataDir string `yaml:"dataDir"`
	// Store names the kind of store: "sqlite", which is the default.
	Store string `yaml:"store"`
	// CertificateCheckInterval is how often the files of all TLS settings are
	// looked at for changes. 0 and unset: 10 s. At least 100 ms.
	CertificateCheckInterval time.Duration `yaml:"certificateCheckInterval"`
	// Retention is how long the messages of channels are kept that have none of
	// their own.
	Retention Retention `yaml:"retention"`
	// Backup copies the store while it runs, if its Directory is set.
	Backup Backup `yaml:"backup"`
	// Encryption seals the content of messages in the store, if it has keys.
	Encryption Encryption `yaml:"encryption"`
	// Users are those that the configuration sets. Others can be added through the
	// API. Where there are none at all, the first start makes one.
	Users    []User    `yaml:"users"`
	Channels []Channel `yaml:"channels"`
	// Alerts says who is told when something breaks. nil: nobody.
	Alerts *Alerts `yaml:"alerts"`
}

// User may use the API.
type User struct {
	// Name has letters, digits and ". _ - @", 64 at most; upper and lower case are
	// the same.
	Name string     `yaml:"name"`
	Role users.Role `yaml:"role"` // "admin", "operator" or "viewer"
	// Password has 12 bytes at least. One of Password, PasswordFile and PasswordHash
	// is given; what is in the file comes to Password.
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"passwordFile"`
	// PasswordHash is by argon2id ($argon2id$…) or one of Mirth's. It is replaced by
	// argon2id in the data directory when the user signs in.
	PasswordHash string `yaml:"passwordHash"`
}

// Channel takes messages in from one source and hands each to all its
// destinations.
type Channel struct {
	// ID names the channel in the store and in the API: letters, digits, "-", "_"
	// and ".", 64 at most. It must stay the same for as long as messages wait.
	ID string `yaml:"id"`
	// Name is for people. Default: the ID.
	Name string `yaml:"name"`
	// InitialState is in which state the channel begins when the engine starts, and
	// when it is deployed: STARTED, which is the default, PAUSED (nothing is taken
	// in, what is queued is delivered) or STOPPED.
	InitialState string `yaml:"initialState"`
	// Expected says when messages come. nil: at any time, and an alert is raised
	// never because none does.
	Expected     *Expected     `yaml:"expected"`
	Retention    Retention     `yaml:"retention"` // what is not set is the configuration's
	Source       Source        `yaml:"source"`
	Destinations []Destination `yaml:"destinations"`

	// Stored tells that the channel was made over the API and has a file of its own.
	Stored bool
}

// Source is where a channel's messages come from. Of TCP, DICOM, HTTP and MESH, the
// one that Type names is set; a source of type channel has no settings of its own:
// what comes in is what destinations of other channels hand over.
type Source struct {
	Type  string `yaml:"type"` // "tcp", "dicom", "http", "mesh" or "channel"
	TCP   *TCPSource
	DICOM *DICOMSource
	HTTP  *HTTPSource
	MESH  *MESHSource
}

// Destination is where a channel's messages go. Of TCP, DICOM, HTTP, SMTP, MESH, File
// and Channel, the one that Type names is set.
type Destination struct {
	// Name names the queue in the store: as Channel.ID, and as lasting.
	Name    string `yaml:"name"`
	Type    string `yaml:"type"` // "tcp", "dicom", "http", "smtp", "mesh", "file" or "channel"
	Queue   Queue  `yaml:"queue"`
	TCP     *TCPDestination
	DICOM   *DICOMDestination
	HTTP    *HTTPDestination
	SMTP    *SMTPDestination
	MESH    *MESHDestination
	File    *FileDestination
	Channel *ChannelDestination
}

// Queue says what happens to a message that a destination does not take.
type Queue struct {
	// RetryInterval is the pause after a first failed attempt; each further one
	// doubles it, up to 5 minutes or to RetryInterval itself, whichever is
	// longer. 0 and unset: 10 s.
	RetryInterval time.Duration `yaml:"retryInterval"`
	// MaxAttempts is after how many failed attempts a message counts as poison.
	// 0: never, it is tried until it gets through.
	MaxAttempts int `yaml:"maxAttempts"`
	// OnPoison is what happens to a message that the destination refuses for good
	// or that has failed MaxAttempts times: "block", the default, keeps it at the
	// head of the queue, because what follows may depend on it, and goes on
	// trying; "skip" lets all others go first, also those yet to come, and tries it
	// again when there are none; "deadletter" sets it aside and goes on with the next.
	OnPoison string `yaml:"onPoison"`
	// MaxMessages is how many messages may wait. While as many do, the channel takes
	// nothing in, for none of its destinations. 0: no bound but the disk's.
	MaxMessages int `yaml:"maxMessages"`
}

// FileDestination writes each message, byte for byte, into a file of its own; of
// one that refers to a DICOM object, the object.
type FileDestination struct {
	Directory string `yaml:"directory"`
}

// ChannelDestination hands messages to another channel of this engine.
type ChannelDestination struct {
	ChannelID string `yaml:"channelId"`
}

// What an unset key means.
const (
	defaultDataDir               = "data"
	defaultRetryInterval         = 10 * time.Second
	defaultResponseTimeout       = 30 * time.Second
	defaultMaxConnections        = 1024
	defaultMaxConnectionsPerHost = 64
	defaultMaxMessageSize        = 16 << 20
	defaultQuarantineFiles       = 10_000
)

func (c *Config) setDefaults() {
	setDefault(&c.DataDir, defaultDataDir)
	setDefault(&c.Store, "sqlite")
	if c.Alerts != nil {
		c.Alerts.setDefaults()
	}
	c.Backup.setDefaults()
	for i := range c.Channels {
		ch := &c.Channels[i]
		setDefault(&ch.Name, ch.ID)
		switch {
		case ch.Source.TCP != nil:
			ch.Source.TCP.setDefaults()
		case ch.Source.DICOM != nil:
			ch.Source.DICOM.setDefaults()
		case ch.Source.HTTP != nil:
			ch.Source.HTTP.setDefaults()
		case ch.Source.MESH != nil:
			ch.Source.MESH.setDefaults(c.DataDir, ch.ID)
		}
		for j := range ch.Destinations {
			d := &ch.Destinations[j]
			setDefault(&d.Queue.RetryInterval, defaultRetryInterval)
			setDefault(&d.Queue.OnPoison, "block")
			switch {
			case d.TCP != nil:
				d.TCP.setDefaults()
			case d.DICOM != nil:
				d.DICOM.setDefaults()
			case d.HTTP != nil:
				d.HTTP.setDefaults()
			case d.MESH != nil:
				d.MESH.setDefaults()
			}
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
