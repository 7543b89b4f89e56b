package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// laboratory is the system that the engine delivers to: an MLLPS receiver that
// demands a client certificate and keeps every message before it acknowledges.
type laboratory struct {
	addr string
	tls  tlsprops.TlsProperties
	keep func(payload []byte) error // called by several goroutines

	server *mllp.Server // nil while it is down
	done   chan error   // receives what Serve returned
}

// open begins to listen, the first time and after each close.
func (l *laboratory) open() error {
	ln, err := net.Listen("tcp", l.addr) //nolint:noctx // loopback, at once
	if err != nil {
		return err
	}
	l.addr = ln.Addr().String()
	l.server = &mllp.Server{TLS: &l.tls, Handler: mllp.HandlerFunc(l.receive)}
	l.done = make(chan error, 1)
	go func(srv *mllp.Server) { l.done <- srv.Serve(context.Background(), ln) }(l.server)
	return nil
}

// close goes down at once, as a system that crashes does.
func (l *laboratory) close() error {
	if l.server == nil {
		return nil
	}
	l.server.Close()
	l.server = nil
	if err := <-l.done; !errors.Is(err, mllp.ErrServerClosed) {
		return err
	}
	return nil
}

func (l *laboratory) receive(_ context.Context, r *mllp.Request) ([]byte, error) {
	return nil, l.keep(r.Message)
}

// filesIn returns a function that keeps each payload as a file in dir, named by
// the order of arrival.
func filesIn(dir string) func([]byte) error {
	var arrivals atomic.Int64
	return func(payload []byte) error {
		name := fmt.Sprintf("%08d.hl7", arrivals.Add(1))
		return os.WriteFile(filepath.Join(dir, name), payload, 0o600)
	}
}

// readDelivered reads the messages that a destination's directory holds, in the
// order of their names.
func readDelivered(dir string) ([]delivered, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	all := make([]delivered, 0, len(names))
	for _, name := range names {
		payload, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		d, err := toDelivered(payload)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, d)
	}
	return all, nil
}

func toDelivered(payload []byte) (delivered, error) {
	var h mllp.Header
	if err := h.Parse(payload); err != nil {
		return delivered{}, err
	}
	return delivered{id: string(h.ControlID), digest: sha256.Sum256(payload)}, nil
}
