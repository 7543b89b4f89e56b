// Package metrics tells Prometheus how the engine is.
//
// Some of it is counted as it happens: [Metrics.Observe] is the engine's Observe, and
// [Metrics.Store] stands between the engine and its store. The rest is read when it is
// asked for, from the engine itself: what a queue holds is known by the store, and a
// second count of it could only be wrong.
//
//	m := metrics.New()
//	eng := engine.New(cfg, m.Store(st), engine.Options{Observe: m.Observe})
//	m.Watch(eng, cfg.DataDir)
//	http.Handle("/metrics", m)
//
// # Labels
//
// A label is the name of a channel or a destination, which the configuration gives, or
// a word of a closed list. Nothing that a sender, a receiver or a user can choose
// becomes a label, so that nobody can make the number of series grow; and nothing of
// a message is in any of them.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/carewire/carewire/examples/engine/internal/engine"
)

const namespace = "carewire"

// concurrentScrapes bounds what those who ask can make the engine do at a time.
const concurrentScrapes = 4

// latencies are the upper bounds of histograms, in seconds: from a commit on a fast
// disk to a receiver that takes its time.
var latencies = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Metrics are the engine's. Make them with New. The methods may be called
// concurrently.
type Metrics struct {
	// static after construction
	registry *prometheus.Registry
	handler  http.Handler

	commits         *prometheus.HistogramVec
	commitFailures  prometheus.Counter
	acknowledgments *prometheus.HistogramVec
	refused         *prometheus.CounterVec
	unauthenticated *prometheus.CounterVec
	deliveries      *prometheus.HistogramVec
	failures        *prometheus.CounterVec
	lastReceived    *prometheus.GaugeVec
}

// New returns metrics of which nothing has happened yet.
func New() *Metrics {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: latencies}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry:        prometheus.NewRegistry(),
		commits:         histogram("commit_seconds", "How long the store took to make a message durable.", "channel"),
		acknowledgments: histogram("acknowledgement_seconds", "From a message's end to its acknowledgement.", "channel"),
		deliveries:      histogram("delivery_seconds", "How long an attempt took that the destination accepted.", "channel", "destination"),
		refused:         counter("refused_total", "Messages that were not taken in, and senders that were not let in.", "channel", "reason"),
		failures:        counter("delivery_failures_total", "Attempts that failed.", "channel", "destination", "reason"),
		unauthenticated: counter("authentication_failures_total", "Those who were not who they had to be.", "interface"),
		commitFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "commit_failures_total", Help: "Messages that the store did not take.",
		}),
		lastReceived: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Name: "last_received_timestamp_seconds", Help: "When the channel last took a message in, since the engine started.",
		}, []string{"channel"}),
	}
	for _, name := range []Interface{Channels, API, Cluster} {
		m.unauthenticated.WithLabelValues(string(name)) // so that the first one is seen as an increase
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.commits, m.commitFailures, m.acknowledgments, m.refused, m.unauthenticated, m.deliveries, m.failures, m.lastReceived,
	)
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: concurrentScrapes, ErrorHandling: promhttp.ContinueOnError})
	return m
}

// ServeHTTP answers in the format that Prometheus reads. Who may ask is the caller's
// to decide.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

// Observe counts what happens in channels.
func (m *Metrics) Observe(e engine.Event) {
	switch e.Kind {
	case engine.Answered:
		m.acknowledgments.WithLabelValues(e.Channel).Observe(e.Duration.Seconds())
	case engine.Refused:
		m.refused.WithLabelValues(e.Channel, string(e.Reason)).Inc()
		if e.Reason.Unauthenticated() {
			m.Unauthenticated(Channels)
		}
	case engine.Delivered:
		m.deliveries.WithLabelValues(e.Channel, e.Destination).Observe(e.Duration.Seconds())
	case engine.Failed:
		m.failures.WithLabelValues(e.Channel, e.Destination, string(e.Reason)).Inc()
	}
}

// Interface is where somebody was not let in.
type Interface string

// The interfaces.
const (
	Channels Interface = "channels"
	API      Interface = "api"
	Cluster  Interface = "cluster"
)

// Unauthenticated counts somebody who was not let in.
func (m *Metrics) Unauthenticated(at Interface) { m.unauthenticated.WithLabelValues(string(at)).Inc() }
