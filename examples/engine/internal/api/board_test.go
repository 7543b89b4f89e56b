package api_test

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// many is an engine with some channels, whose counts are what the test says.
type many struct {
	fake
	cfgs  atomic.Pointer[[]*config.Channel]
	count atomic.Int64 // received by the first
	busy  atomic.Bool  // the store does not answer
}

func newMany(n int) *many {
	m := new(many)
	cfgs := make([]*config.Channel, n)
	for i := range cfgs {
		cfgs[i] = &config.Channel{ID: fmt.Sprintf("c%05d", i), Name: fmt.Sprint("Channel ", i), Destinations: []config.Destination{{Name: "archive"}}}
	}
	m.cfgs.Store(&cfgs)
	return m
}

func (m *many) Channels() []*config.Channel { return *m.cfgs.Load() }

func (m *many) Statuses(context.Context) ([]engine.Status, error) {
	if m.busy.Load() {
		return nil, store.ErrFailed
	}
	var list []engine.Status
	for i, cfg := range m.Channels() {
		status := engine.Status{Config: cfg, State: engine.Started}
		if i == 0 {
			status.Statistics.Received = m.count.Load()
		}
		list = append(list, status)
	}
	return list, nil
}

// statuses waits for the next frame of statuses.
func (c *client) statuses() map[string]any {
	c.t.Helper()
	for {
		if f := c.receive(); f["type"] == "statuses" {
			return f
		}
	}
}

func received(t *testing.T, f map[string]any) map[string]float64 {
	t.Helper()
	counts := make(map[string]float64)
	for _, item := range f["data"].([]any) {
		status := item.(map[string]any)
		counts[status["channelId"].(string)] = status["statistics"].(map[string]any)["received"].(float64)
	}
	return counts
}

// Who subscribes to statuses gets all of them in pieces, then those that change, and
// learns which channels there are, and whether the store is well.
func TestStatusesArePushedAsTheyChange(t *testing.T) {
	t.Parallel()
	m := newMany(600)
	s := serve(t, m, api.Options{ServerID: "node-1"})
	c := connect(t, listen(t, s)+"/ws/dashboardstatus", as(t, s, "viewer"))
	c.send(`{"type":"subscribe","statuses":true}`)
	assert.Equal(t, "subscribed", c.receive()["type"])
	first := c.statuses()
	assert.Len(t, first["channels"], 600)
	assert.Equal(t, true, first["healthy"])
	_, err := time.Parse(time.RFC3339, first["time"].(string))
	require.NoError(t, err)
	all := received(t, first)
	for len(all) < 600 {
		next := c.statuses()
		assert.NotContains(t, next, "channels")
		assert.LessOrEqual(t, len(next["data"].([]any)), 250)
		maps.Copy(all, received(t, next))
	}
	m.count.Store(7)
	assert.Equal(t, map[string]float64{"c00000": 7}, received(t, c.statuses()), "what has changed, and nothing else")

	fewer := m.Channels()[1:]
	m.cfgs.Store(&fewer)
	gone := c.statuses()
	assert.Len(t, gone["channels"], 599)

	m.busy.Store(true)
	assert.Equal(t, false, c.statuses()["healthy"])
	m.busy.Store(false)
	assert.Equal(t, true, c.statuses()["healthy"])

	// One who asks for a single channel gets that; one who does not ask, as before.
	one := connect(t, listen(t, s)+"/ws/dashboardstatus", as(t, s, "viewer"))
	one.send(`{"type":"subscribe","statuses":true,"channelId":"c00003"}`)
	assert.Equal(t, map[string]float64{"c00003": 0}, received(t, one.statuses()))
}
