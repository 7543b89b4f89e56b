package meshclient_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// The mailboxes of every test: alice sends, bob receives.
const alice, bob = "MAILBOX1", "MAILBOX2"

// bubble is synctest.Test. In FIPS 140-3 mode crypto/rand makes its entropy from
// how long things take, and in a bubble nothing takes any time.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		t.Skip("skipped: crypto/rand has no entropy in a bubble in FIPS mode")
	}
	synctest.Test(t, f)
}

// serve starts a server that ends with the test, on a real socket.
func serve(t testing.TB, o meshtest.Options) *meshtest.Server {
	t.Helper()
	s, err := meshtest.New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// inMemory starts a server that is reached with the dialer it returns.
func inMemory(t testing.TB, o meshtest.Options) (*meshtest.Server, *memnet.Listener) {
	t.Helper()
	ln := memnet.Listen()
	o.Listener = ln
	return serve(t, o), ln
}

// connect returns a client of a mailbox that ends with the test, and does not
// pause between attempts.
func connect(t testing.TB, s *meshtest.Server, mailbox string, changes ...func(*meshclient.Config)) *meshclient.Client {
	t.Helper()
	conf, err := s.Config(mailbox)
	require.NoError(t, err)
	conf.Retry = httpsender.Retry{MinBackoff: -1}
	for _, change := range changes {
		change(&conf)
	}
	c, err := meshclient.New(conf)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

// failed requires an *Error and returns it.
func failed(t testing.TB, err error) *meshclient.Error {
	t.Helper()
	require.Error(t, err)
	e, ok := errors.AsType[*meshclient.Error](err)
	require.True(t, ok, "%T: %v", err, err)
	return e
}

// bounded is the context of a test, with the bound that every wait has.
func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// message returns one for bob.
func message(content []byte) *meshclient.Message {
	return &meshclient.Message{To: bob, WorkflowID: "TEST_WORKFLOW", Content: bytes.NewReader(content)}
}

// chunked returns one in chunks of 1000 bytes, which meshtest must be told to take.
func chunked(content []byte) *meshclient.Message {
	m := message(content)
	m.ChunkSize, m.SmallChunks = 1000, true
	return m
}

var small = meshtest.Options{SmallChunks: true}

// fetch receives a message.
func fetch(t testing.TB, c *meshclient.Client, id string) (*meshclient.Info, []byte) {
	t.Helper()
	var got bytes.Buffer
	info, err := c.Receive(bounded(t), id, &got, nil)
	require.NoError(t, err)
	return info, got.Bytes()
}

// ops returns the requests of a kind.
func ops(s *meshtest.Server, op string) []meshtest.Request {
	var found []meshtest.Request
	for _, r := range s.Requests() {
		if r.Op == op {
			found = append(found, r)
		}
	}
	return found
}

// everything returns a logger that leaves nothing out.
func everything(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func asType[E error](err error) (E, bool) { return errors.AsType[E](err) }

// port returns that of a server.
func port(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return u.Port()
}

// to is a dialer that always goes to one server.
type to string

func (d to) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port(string(d))))
}
