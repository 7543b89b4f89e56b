package mllp_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/mllp"
)

func TestSettingsThatExcludeEachOtherAreRefused(t *testing.T) {
	release2 := mllp.Framing{Mode: mllp.ModeMLLPv2}
	handler := mllp.HandlerFunc(nil)
	stream := mllp.StreamHandlerFunc(nil)
	key := func(*mllp.Request) []byte { return nil }
	responder := &mllp.Responder{Addr: "127.0.0.1:1"}
	for want, srv := range map[string]*mllp.Server{
		"Enhanced cannot be used with MLLPv2":                              {Handler: handler, Framing: release2, Enhanced: true},
		"Application cannot be used with MLLPv2":                           {Handler: handler, Framing: release2, Application: handler},
		"Responder cannot be used with MLLPv2":                             {Handler: handler, Framing: release2, Responder: responder},
		"Replay cannot be used with MLLPv2":                                {Handler: handler, Framing: release2, Replay: new(mllp.MemoryReplay)},
		"Key cannot be used with MLLPv2":                                   {Handler: handler, Framing: release2, Key: key, Parallel: 2},
		"Batches cannot be used with MLLPv2":                               {Handler: handler, Framing: release2, Batches: mllp.PolicyLast},
		"Application cannot be used with Stream":                           {Stream: stream, Application: handler},
		"Replay cannot be used with Stream":                                {Stream: stream, Replay: new(mllp.MemoryReplay)},
		"Key cannot be used with Stream":                                   {Stream: stream, Key: key, Parallel: 2},
		"Batches cannot be used with Stream":                               {Stream: stream, Batches: mllp.PolicyPerMessage},
		"Senders, and Batches or MultipleMSH deliver, cannot be used with": {Stream: stream, MultipleMSH: mllp.PolicyDeliver, Senders: []mllp.SenderRule{{CommonName: "x", Applications: []string{"*"}, Facilities: []string{"*"}}}},
		"Key cannot be used with connections for one message":              {Handler: handler, Framing: mllp.Framing{KeepOpen: new(false)}, Key: key, Parallel: 2},
		"Responder.Dialer cannot use MLLPv2":                               {Handler: handler, Responder: &mllp.Responder{Addr: "127.0.0.1:1", Dialer: &mllp.Dialer{Framing: release2}}},
	} {
		assert.ErrorContains(t, srv.Validate(), want)
	}
	for _, d := range []*mllp.Dialer{{Framing: release2, Enhanced: true}, {Framing: release2, Match: mllp.MatchNone}} {
		_, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:1")
		assert.ErrorContains(t, err, "with MLLPv2")
	}
}
