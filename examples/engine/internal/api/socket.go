package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// What a WebSocket client may take.
const (
	socketMaxRead   = 4 << 10 // bytes of a message from the client
	socketWriteTime = 10 * time.Second
	socketPing      = 30 * time.Second
)

// socketErrors are what is not a handshake: package websocket answers it.
var socketErrors = []int{http.StatusBadRequest, http.StatusUpgradeRequired, http.StatusNotImplemented}

func (s *Server) socketRoutes() []route {
	return []route{
		{method: "GET", pattern: "/ws/dashboardstatus", access: viewers, handler: s.socket(&s.dashboards, s.newDashboard), code: http.StatusSwitchingProtocols, socket: true, refuses: socketErrors, summary: "WebSocket: states of connections"},
		{method: "GET", pattern: "/ws/serverlog", access: admins, handler: s.socket(&s.logViewers, s.newLogViewer), code: http.StatusSwitchingProtocols, socket: true, refuses: socketErrors, summary: "WebSocket: the server's log"},
	}
}

// frame is a message to or from a client.
type frame map[string]any

// encode returns a frame, or a part of one, as it is sent. There is none that could
// not be.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("api: a frame that is not JSON: %v", err))
	}
	return text
}

// conversation is one client's. Its methods are called by one goroutine at a time.
type conversation interface {
	// take answers what the client sends.
	take(ctx context.Context, kind string, message []byte) frame
	// news returns what there is to push, and when there may be more: after more is
	// closed, or after a time. 0: never.
	news(ctx context.Context) (news [][]byte, more <-chan struct{}, after time.Duration)
}

// sockets counts the clients of one kind.
type sockets struct {
	mu     sync.Mutex
	count  int            // guarded by mu
	closed bool           // guarded by mu
	gone   sync.WaitGroup // of those counted
}

func (c *sockets) enter(limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.count >= limit {
		return false
	}
	c.count++
	c.gone.Add(1)
	return true
}

func (c *sockets) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count--
	c.gone.Done()
}

// close lets no more in and waits for those who are there, whose sessions have to
// have ended.
func (c *sockets) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.gone.Wait()
}

// socket turns a request that has passed all other checks into a conversation. The
// page that asks for it must be the API's own or of an allowed origin: browsers
// send cookies along with WebSockets of any page.
func (s *Server) socket(kind *sockets, begin func() conversation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: s.origins})
		if err != nil {
			return // Accept has answered
		}
		if !kind.enter(s.maxSockets) {
			_ = conn.Close(websocket.StatusTryAgainLater, "Too many clients")
			return
		}
		defer kind.leave()
		conn.SetReadLimit(socketMaxRead)
		s.converse(context.WithoutCancel(r.Context()), conn, begin())
	}
}

// converse serves one client until it leaves, is too slow, or its session ends.
// Nothing is kept for a client that does not read: what it has not been sent yet is
// looked up when it takes it.
func (s *Server) converse(ctx context.Context, conn *websocket.Conn, c conversation) {
	ctx, cancel := context.WithCancel(ctx)
	session := exchangeOf(ctx).session
	said := make(chan []byte)
	reader := make(chan struct{})
	go func() {
		defer close(reader)
		for {
			_, message, err := conn.Read(ctx)
			if err != nil {
				return
			}
			select {
			case said <- message:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		_ = conn.CloseNow()
		<-reader
	}()
	write := func(text []byte) bool {
		ctx, cancel := context.WithTimeout(ctx, socketWriteTime)
		defer cancel()
		return conn.Write(ctx, websocket.MessageText, text) == nil
	}
	if !write(encode(frame{"type": "connected", "serverId": s.serverID})) {
		return
	}
	ping := time.NewTicker(socketPing)
	defer ping.Stop()
	for {
		news, more, after := c.news(ctx)
		for _, text := range news {
			if !write(text) {
				return
			}
		}
		var again <-chan time.Time
		if after > 0 {
			again = time.After(after)
		}
		select {
		case <-session.Done():
			_ = conn.Close(websocket.StatusPolicyViolation, "Session ended")
			return
		case <-reader:
			return
		case message := <-said:
			s.sessions.Touch(session)
			if !write(encode(respond(ctx, c, message))) {
				return
			}
		case <-ping.C:
			ctx, cancel := context.WithTimeout(ctx, socketWriteTime)
			err := conn.Ping(ctx)
			cancel()
			if err != nil {
				return
			}
		case <-more:
		case <-again:
		}
	}
}

func respond(ctx context.Context, c conversation, message []byte) frame {
	var head struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(message, &head) != nil || head.Type == "" {
		return frame{"type": "error", "message": "Invalid message format"}
	}
	if f := c.take(ctx, head.Type, message); f != nil {
		return f
	}
	return frame{"type": "error", "message": "Unknown message type: " + head.Type}
}
