package dicomtls_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/memnet"
)

// site is a Server under test.
type site struct {
	t     testing.TB
	srv   *dicomtls.Server
	mem   *memnet.Listener // nil: over TCP
	addr  string
	stop  context.CancelFunc // ends the context of Serve
	ended chan struct{}      // closed when Serve has returned
	err   error              // of Serve, once it has

	mu      sync.Mutex
	changed *sync.Cond // of events
	events  []dicomtls.Event
	log     bytes.Buffer
}

func (s *site) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

// listen runs srv on a port of the loopback until the test ends.
func listen(t testing.TB, srv *dicomtls.Server) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := serve(t, srv, ln)
	s.addr = ln.Addr().String()
	return s
}

// inMemory runs srv on a network inside of the process until the test ends.
func inMemory(t testing.TB, srv *dicomtls.Server) *site {
	t.Helper()
	ln := memnet.Listen()
	s := serve(t, srv, ln)
	s.mem = ln
	s.addr = ln.Addr().String()
	return s
}

func serve(t testing.TB, srv *dicomtls.Server, ln net.Listener) *site {
	t.Helper()
	s := &site{t: t, srv: srv, ended: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	srv.Observe = func(e dicomtls.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
		s.changed.Broadcast()
	}
	srv.Logger = slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		s.err = srv.Serve(ctx, ln)
		close(s.ended)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-s.ended
		stop()
	})
	return s
}

// logged returns what has been logged.
func (s *site) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// words are an event as a test names it: "closed released", "operation C-STORE 0000".
func words(e dicomtls.Event) string {
	w := []string{string(e.Kind)}
	if e.Reason != "" {
		w = append(w, string(e.Reason))
	}
	if e.Operation != "" {
		w = append(w, e.Operation, e.Status.Code())
	}
	return strings.Join(w, " ")
}

// told returns all events but those of opening.
func (s *site) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		if e.Kind != dicomtls.EventOpened {
			all = append(all, words(e))
		}
	}
	return all
}

// strange returns the events that do not belong to a smooth run.
func (s *site) strange() []string {
	var all []string
	for _, w := range s.told() {
		if w != "closed released" && !strings.HasSuffix(w, " 0000") {
			all = append(all, w)
		}
	}
	return all
}

func (s *site) count(what string) (n int) {
	for _, w := range s.told() {
		if w == what {
			n++
		}
	}
	return n
}

// waitFor waits until an event has been told n times, for 20 s at most.
func (s *site) waitFor(what string, n int) {
	s.t.Helper()
	late := time.AfterFunc(20*time.Second, func() { s.changed.Broadcast() })
	defer late.Stop()
	end := time.Now().Add(20 * time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		found := 0
		for _, e := range s.events {
			if words(e) == what {
				found++
			}
		}
		if found >= n {
			return
		}
		if !time.Now().Before(end) {
			s.t.Fatalf("waited for %d of %q, got %v", n, what, s.events)
		}
		s.changed.Wait()
	}
}

// event returns the only event with these words.
func (s *site) event(what string) dicomtls.Event {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []dicomtls.Event
	for _, e := range s.events {
		if words(e) == what {
			found = append(found, e)
		}
	}
	require.Len(s.t, found, 1, "%s of %v", what, s.events)
	return found[0]
}

// keeper is a StoreHandler that keeps data sets in memory.
type keeper struct {
	mu       sync.Mutex
	got      map[string]string
	requests []dicomtls.StoreRequest
	broken   []error // of Body
}

func newKeeper() *keeper { return &keeper{got: make(map[string]string)} }

func (k *keeper) ServeStore(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
	data, err := io.ReadAll(r.Body)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests = append(k.requests, *r)
	if err != nil {
		k.broken = append(k.broken, err)
		return dicomtls.StatusOutOfResources
	}
	k.got[r.SOPInstanceUID] = string(data)
	return dicomtls.StatusSuccess
}

// kept returns the data sets by instance.
func (k *keeper) kept() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.got)
}

// forget returns the data sets and keeps them no longer.
func (k *keeper) forget() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	got := k.got
	k.got, k.requests, k.broken = make(map[string]string), nil, nil
	return got
}
