package config

import (
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/calendar"
)

// Alerts says what an alert is raised for, and where it goes.
type Alerts struct {
	// Channel is the id of the channel that takes the alerts in as messages, in JSON.
	// Its source is of type channel; its destinations bring them to people, by mail
	// or to a webhook for instance, as they would any message.
	Channel string `yaml:"channel"`
	// CheckInterval is how often it is looked for what is wrong. 0 and unset: 15 s.
	CheckInterval time.Duration `yaml:"checkInterval"`
	// QueueingAfter is how long a message may wait for its destination. 0 and unset:
	// 5 minutes.
	QueueingAfter time.Duration `yaml:"queueingAfter"`
	// CertificateDays is how many days before its end a certificate is to be renewed.
	// 0 and unset: 30. It is said again when 7 are left, and 1.
	CertificateDays int `yaml:"certificateDays"`
	// DiskFreePercent is how much of the data directory's disk is to be free. 0 and
	// unset: 10. It is said again when half of that is left.
	DiskFreePercent int `yaml:"diskFreePercent"`
}

// Expected says when messages of a channel come.
type Expected struct {
	// Within is the longest time without a message.
	Within time.Duration `yaml:"within"`
	// Days are those of the week, such as mon-fri or sat,sun. Default: all.
	Days string `yaml:"days"`
	// Hours are those of the day, such as 07:00-19:00. Default: all.
	Hours string `yaml:"hours"`
	// Zone is that of Hours, such as Europe/London. Default: the machine's.
	Zone string `yaml:"zone"`

	// Calendar is what Days, Hours and Zone say.
	Calendar calendar.Calendar
}

const (
	defaultCheckInterval   = 15 * time.Second
	defaultQueueingAfter   = 5 * time.Minute
	defaultCertificateDays = 30
	defaultDiskFreePercent = 10
)

func (a *Alerts) setDefaults() {
	setDefault(&a.CheckInterval, defaultCheckInterval)
	setDefault(&a.QueueingAfter, defaultQueueingAfter)
	setDefault(&a.CertificateDays, defaultCertificateDays)
	setDefault(&a.DiskFreePercent, defaultDiskFreePercent)
}

func (d *decoder) alerts(cfg *Config) {
	a := cfg.Alerts
	if a == nil {
		return
	}
	if key := "alerts.channel"; d.clean(key) {
		i := slices.IndexFunc(cfg.Channels, func(ch Channel) bool { return ch.ID == a.Channel })
		switch {
		case a.Channel == "":
			d.at(key, "is missing: name the channel that brings alerts to people")
		case i < 0:
			d.at(key, "no channel has this id")
		case cfg.Channels[i].Source.Type != "channel" && cfg.Channels[i].Source.Type != "":
			d.at(key, "is a channel whose source is not of type channel")
		}
	}
	for name, value := range map[string]time.Duration{"checkInterval": a.CheckInterval, "queueingAfter": a.QueueingAfter} {
		if key := join("alerts", name); d.has(key) && d.clean(key) && value < time.Second {
			d.at(key, "must be at least 1s, such as 5m")
		}
	}
	if key := "alerts.certificateDays"; d.has(key) && d.clean(key) && a.CertificateDays < 1 {
		d.at(key, "must be at least 1")
	}
	if key := "alerts.diskFreePercent"; d.has(key) && d.clean(key) && (a.DiskFreePercent < 1 || a.DiskFreePercent > 90) {
		d.at(key, "must be from 1 to 90")
	}
}

func (d *decoder) expected(key string, e *Expected) {
	if e == nil {
		return
	}
	if at := join(key, "within"); d.clean(at) && e.Within < time.Second {
		d.at(at, "is the longest time without a message: at least 1s, such as 30m")
	}
	if !d.cleanUnder(key) {
		return
	}
	var err error
	if e.Calendar, err = calendar.Parse(e.Days, e.Hours, e.Zone); err != nil {
		name, text, _ := strings.Cut(err.Error(), ": ")
		d.at(join(key, name), "%s", text)
	}
}
