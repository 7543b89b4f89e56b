package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/serverlog"
	"github.com/carewire/carewire/internal/memnet"
)

// Row 36: what a client does not take is not kept for it, and it is cut off.
func TestSlowClientIsCutOffAfterTenSeconds(t *testing.T) {
	store := everybody(t)
	synctest.Test(t, func(t *testing.T) {
		recent := serverlog.New(slog.LevelInfo)
		s, err := api.New(&fake{}, api.Options{Users: store, Audit: new(notebook), ServerLog: recent, MaxWebSockets: 1})
		require.NoError(t, err)
		ln := memnet.Listen()
		server := &http.Server{Handler: s, ReadHeaderTimeout: time.Second}
		go server.Serve(ln)
		transport := &http.Transport{DialContext: ln.DialContext}
		defer func() {
			s.Close()
			server.Close()
			transport.CloseIdleConnections()
		}()
		id := login(s, "admin", password).Header().Get("X-Session-ID")
		connect := func() (*websocket.Conn, error) {
			c, resp, err := websocket.Dial(t.Context(), "ws://engine/ws/serverlog", &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{"X-Session-Id": {id}},
			})
			if resp != nil && resp.Body != nil {
				resp.Body.Close()
			}
			require.NoError(t, err)
			_, _, err = c.Read(context.Background())
			return c, err
		}
		slow, err := connect()
		require.NoError(t, err)
		defer slow.CloseNow()
		require.NoError(t, slow.Write(t.Context(), websocket.MessageText, []byte(`{"type":"subscribe"}`)))
		_, _, err = slow.Read(t.Context())
		require.NoError(t, err)
		for range 500 {
			slog.New(recent.Handler()).Info("line", "text", strings.Repeat("x", 2000))
		}
		time.Sleep(10*time.Second - time.Millisecond)
		second, err := connect()
		assert.Equal(t, websocket.StatusTryAgainLater, websocket.CloseStatus(err), "it still has its place")
		second.CloseNow()
		time.Sleep(time.Second)
		third, err := connect()
		require.NoError(t, err)
		third.CloseNow()
	})
}
