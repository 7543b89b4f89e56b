package metrics

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/disk"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/tlsprops"
)

// scrapeTime bounds how long the store may take to answer for all channels. What it
// has not answered for then is missing in this scrape.
const scrapeTime = 5 * time.Second

// Engine is what metrics ask of an engine.
type Engine interface {
	Channels() []*config.Channel
	Status(ctx context.Context, id string) (engine.Status, error)
	Healthy() error
	Certificates(ctx context.Context) []engine.CertificateUse
}

// Watch has e asked at every scrape, and the disk that holds directory. own is the
// API's certificate; nil: it has none. Watch must be called once.
func (m *Metrics) Watch(e Engine, directory string, own *tlsprops.Source) {
	m.registry.MustRegister(&collector{engine: e, directory: directory, own: own})
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

var (
	channelStarted = desc("channel_started", "1 while the channel takes messages in, else 0.", "channel")
	channelConns   = desc("channel_connections", "Connections that the channel's source has open.", "channel")
	received       = desc("received_total", "Messages that the channel has taken in.", "channel")
	filtered       = desc("filtered_total", "Of these, those for no destination.", "channel")
	queueReceived  = desc("queue_received_total", "Messages that were put into the queue.", "channel", "destination")
	queueSent      = desc("queue_sent_total", "Messages that the destination has.", "channel", "destination")
	queueDepth     = desc("queue_depth", "Messages that wait in the queue.", "channel", "destination")
	queueAge       = desc("queue_oldest_age_seconds", "For how long the oldest message in the queue has waited.", "channel", "destination")
	deadLetters    = desc("dead_letters", "Messages set aside.", "channel", "destination")
	failingSeconds = desc("queue_failing_seconds", "For how long the destination has taken nothing that was tried; 0: it does.", "channel", "destination")
	notAfter       = desc("certificate_not_after_timestamp_seconds", "When the first certificate of a TLS setting ends; of the API the channel is empty.", "channel", "connector", "setting", "use")
	notReplaced    = desc("certificate_replacement_failed", "1 while the files of a TLS setting cannot be used as they are now, else 0.", "channel", "connector", "setting")
	storeHealthy   = desc("store_healthy", "1 while the store accepts messages, else 0.")
	diskFree       = desc("disk_free_bytes", "Free on the disk of the data directory.")
	diskSize       = desc("disk_size_bytes", "Size of the disk of the data directory.")
)

type collector struct {
	engine    Engine
	directory string
	own       *tlsprops.Source // nil: none
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		channelStarted, channelConns, received, filtered, queueReceived, queueSent, queueDepth, queueAge, deadLetters, failingSeconds,
		notAfter, notReplaced, storeHealthy, diskFree, diskSize,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(storeHealthy, truth(c.engine.Healthy() == nil))
	if space, err := disk.Of(c.directory); err == nil {
		gauge(diskFree, float64(space.Free))
		gauge(diskSize, float64(space.Size))
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	if c.own != nil {
		certificates(gauge, c.own.Status(), "", "API", "TLS_CERT")
	}
	for _, use := range c.engine.Certificates(ctx) {
		use.Status.Err = use.Err
		certificates(gauge, use.Status, use.Channel.ID, use.ConnectorName(), use.Setting)
	}
	now := time.Now()
	for _, cfg := range c.engine.Channels() {
		status, err := c.engine.Status(ctx, cfg.ID)
		if err != nil {
			continue // it was removed meanwhile, or the store does not answer, of which store_healthy tells
		}
		c.channel(out, gauge, &status, now)
	}
}

func (c *collector) channel(out chan<- prometheus.Metric, gauge func(*prometheus.Desc, float64, ...string), status *engine.Status, now time.Time) {
	id, stats := status.Config.ID, &status.Statistics
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge(channelStarted, truth(status.State == engine.Started), id)
	gauge(channelConns, float64(status.Listener.Connections), id)
	counter(received, stats.Received, id)
	counter(filtered, stats.Filtered, id)
	queues, failing := stats.Destinations, make(map[string]time.Time)
	for i, d := range status.Config.Destinations {
		failing[d.Name] = status.Failing[i]
		if !slices.ContainsFunc(queues, func(q store.DestinationStats) bool { return q.Name == d.Name }) {
			queues = append(queues, store.DestinationStats{Name: d.Name}) // nothing has come for it yet
		}
	}
	for _, queue := range queues {
		counter(queueReceived, queue.Received, id, queue.Name)
		counter(queueSent, queue.Sent, id, queue.Name)
		gauge(queueDepth, float64(queue.Queued), id, queue.Name)
		gauge(queueAge, since(queue.OldestQueued, now), id, queue.Name)
		gauge(deadLetters, float64(queue.Error), id, queue.Name)
		gauge(failingSeconds, since(failing[queue.Name], now), id, queue.Name)
	}
}

// certificates tells of one TLS setting: of those with the same use, of the first that
// ends.
func certificates(gauge func(*prometheus.Desc, float64, ...string), status tlsprops.Status, channel, connector, setting string) {
	gauge(notReplaced, truth(status.Err != nil), channel, connector, setting)
	first := make(map[tlsprops.Use]time.Time)
	for _, cert := range status.Certificates {
		if known, ok := first[cert.Use]; !ok || cert.NotAfter.Before(known) {
			first[cert.Use] = cert.NotAfter
		}
	}
	for use, end := range first {
		gauge(notAfter, float64(end.Unix()), channel, connector, setting, string(use))
	}
}

// since returns the seconds from a time to now; of no time it is 0.
func since(then, now time.Time) float64 {
	if then.IsZero() {
		return 0
	}
	return max(0, now.Sub(then).Seconds())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
