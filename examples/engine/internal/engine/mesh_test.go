package engine_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/meshclient/meshtest"
	"github.com/carewire/carewire/tlsprops"
)

// mesh is a MESH with the mailboxes MAILBOX1 and MAILBOX2.
type mesh struct {
	*meshtest.Server
	t   *testing.T
	tls *tlsprops.TlsProperties
}

func newMESH(t *testing.T) *mesh {
	t.Helper()
	s, err := meshtest.New(meshtest.Options{})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	cert, key, err := s.Client(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range map[string][]byte{"client.crt": cert, "client.key": key, "ca.crt": s.CA()} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	return &mesh{Server: s, t: t, tls: &tlsprops.TlsProperties{
		Enabled: true, TrustStorePath: filepath.Join(dir, "ca.crt"),
		CertStorePath: filepath.Join(dir, "client.crt"), KeyStorePath: filepath.Join(dir, "client.key"),
	}}
}

func (m *mesh) mailbox(id string) config.Mailbox {
	return config.Mailbox{BaseURL: m.URL, Mailbox: id, Password: "password", HashSecret: "TestKey", TLS: m.tls, ProxyURL: "none"}
}

// source is a channel that empties a mailbox and files what it gets in dir.
func (m *mesh) source(mailbox, dir string) config.Channel {
	ch := channel("in", toFile("archive", dir))
	ch.Source = config.Source{Type: "mesh", MESH: &config.MESHSource{
		Mailbox: m.mailbox(mailbox), PollingFrequency: 5 * time.Minute, MaxMessageSize: 16 << 20, Directory: m.t.TempDir(),
	}}
	return ch
}

// to is a destination that sends to MAILBOX2.
func (m *mesh) to(keys ...string) config.Destination {
	dest := configured(m.t, "type: mesh\nbaseUrl: http://127.0.0.1:1\nmailbox: MAILBOX1\npassword: password\nhashSecret: TestKey\nto: MAILBOX2\nworkflowId: W\n"+strings.Join(keys, "\n"))
	dest.MESH.Mailbox = m.mailbox("MAILBOX1")
	return dest
}

func (m *mesh) count(op string) (n int) {
	for _, r := range m.Requests() {
		if r.Op == op {
			n++
		}
	}
	return n
}

func TestAMESHInboxIsEmptiedAsItIsAndAcknowledgedWhenItIsStored(t *testing.T) {
	t.Parallel()
	m, dir := newMESH(t), t.TempDir()
	contents := []string{string(message("M1")), "\x00\r\n\xff{}", strings.Repeat("x", 3<<20)}
	for _, content := range contents {
		half := len(content) / 2
		m.Deliver(&meshtest.Message{
			From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{[]byte(content[:half]), []byte(content[half:])},
			Header: map[string][]string{"Mex-Subject": {"SubjectCanary"}, "Mex-Filename": {"../../etc/passwd"}},
		})
	}
	ch := m.source("MAILBOX2", dir)
	st := openStore(t, t.TempDir())
	e := start(t, st, ch)
	eventually(t, "all are filed", func() bool { return len(filed(t, dir)) == len(contents) })
	assert.Equal(t, contents, filed(t, dir))
	eventually(t, "all are acknowledged", func() bool { return len(m.Waiting("MAILBOX2")) == 0 })
	assert.Equal(t, 1, m.count("handshake"))
	assert.NotContains(t, e.log.String(), "SubjectCanary")
	status, err := e.Status(t.Context(), "in")
	require.NoError(t, err)
	assert.Equal(t, "MESH", status.Listener.Transport)
	assert.True(t, status.Listener.Listening)

	require.NoError(t, e.StopChannel(t.Context(), "in"))
	left, err := filepath.Glob(filepath.Join(ch.Source.MESH.Directory, "*"))
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(ch.Source.MESH.Directory, "polling.json")}, left)
	require.NoError(t, e.StartChannel(t.Context(), "in"))
	assert.Equal(t, 1, m.count("handshake"), "a restart does not shake hands again")
}

func TestAMESHMessageThatCannotBeStoredStaysInItsInboxAndIsReceivedOnce(t *testing.T) {
	t.Parallel()
	m, dir := newMESH(t), t.TempDir()
	m.Deliver(&meshtest.Message{From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{[]byte("x")}})
	ch := m.source("MAILBOX2", dir)
	ch.Source.MESH.PollingFrequency = 24 * time.Hour
	st := &wavering{Store: openStore(t, t.TempDir())}
	full := store.ErrFull
	st.err.Store(&full)
	e := start(t, st, ch)
	eventually(t, "the store has refused it", func() bool { return e.log.count("cannot be stored") > 0 })
	require.NoError(t, e.StopChannel(t.Context(), "in"))
	assert.Len(t, m.Waiting("MAILBOX2"), 1)
	assert.Zero(t, m.count("acknowledge"))
	st.err.Store(nil)
	require.NoError(t, os.Remove(filepath.Join(ch.Source.MESH.Directory, "polling.json")), "or it would be too soon")
	require.NoError(t, e.StartChannel(t.Context(), "in"))
	eventually(t, "it is acknowledged", func() bool { return len(m.Waiting("MAILBOX2")) == 0 })
	assert.Equal(t, 1, m.count("download"))
	eventually(t, "it is filed", func() bool { return len(filed(t, dir)) == 1 })
}

// unheard is a store whose first intake is committed, and its answer lost, as when
// the process ends in between.
type unheard struct {
	store.Store
	said atomic.Bool
}

func (u *unheard) Intake(ctx context.Context, in store.Intake) (int64, error) {
	id, err := u.Store.Intake(ctx, in)
	if err == nil && !u.said.Swap(true) {
		return 0, store.ErrFailed
	}
	return id, err
}

func TestAMESHMessageThatComesAgainAfterItsCommitIsStoredOnce(t *testing.T) {
	t.Parallel()
	m, dir := newMESH(t), t.TempDir()
	m.Deliver(&meshtest.Message{From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{[]byte("x")}})
	ch := m.source("MAILBOX2", dir)
	st := &unheard{Store: openStore(t, t.TempDir())}
	e := start(t, st, ch)
	eventually(t, "it is stored", st.said.Load)
	require.NoError(t, e.StopChannel(t.Context(), "in"))
	assert.Len(t, m.Waiting("MAILBOX2"), 1, "and not acknowledged")
	require.NoError(t, os.Remove(filepath.Join(ch.Source.MESH.Directory, "polling.json")), "or it would be too soon")
	require.NoError(t, e.StartChannel(t.Context(), "in"))
	eventually(t, "it is acknowledged", func() bool { return len(m.Waiting("MAILBOX2")) == 0 })
	eventually(t, "it is filed", func() bool { return len(filed(t, dir)) == 1 })
	assert.Equal(t, int64(1), e.stats("in").Received)
}

func TestAMESHMessageThatIsTooLargeIsLeftAndHoldsUpNothing(t *testing.T) {
	t.Parallel()
	m, dir := newMESH(t), t.TempDir()
	for _, n := range []int{2000, 10} {
		m.Deliver(&meshtest.Message{From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{make([]byte, n)}})
	}
	ch := m.source("MAILBOX2", dir)
	ch.Source.MESH.MaxMessageSize = 1000
	start(t, openStore(t, t.TempDir()), ch)
	eventually(t, "the other one is filed", func() bool { return len(filed(t, dir)) == 1 })
	eventually(t, "and acknowledged", func() bool { return len(m.Waiting("MAILBOX2")) == 1 })
}

func TestAMESHReportIsKeptAndIsNoMessage(t *testing.T) {
	t.Parallel()
	m, dir := newMESH(t), t.TempDir()
	lost := m.Deliver(&meshtest.Message{From: "MAILBOX2", To: "MAILBOX1", WorkflowID: "W", Chunks: [][]byte{{1}}})
	m.Undeliverable(lost, "14", "DescriptionCanary")
	ch := m.source("MAILBOX2", dir)
	e := start(t, openStore(t, t.TempDir()), ch)
	eventually(t, "it is acknowledged", func() bool { return len(m.Waiting("MAILBOX2")) == 0 })
	files, err := filepath.Glob(filepath.Join(ch.Source.MESH.Directory, "reports", "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	var report map[string]any
	require.NoError(t, json.Unmarshal(text, &report))
	assert.Equal(t, lost, report["linkedMessageId"])
	assert.Equal(t, "14", report["code"])
	assert.Equal(t, "DescriptionCanary", report["description"])
	assert.Zero(t, e.stats("in").Received)
	assert.Equal(t, 1, e.log.count("was not delivered"))
	assert.NotContains(t, e.log.String(), "DescriptionCanary")
}

func TestMessagesGoFromOneEngineToAnotherOverMESH(t *testing.T) {
	t.Parallel()
	m, dir := newMESH(t), t.TempDir()
	out := channel("adt", m.to("subject: Result ${message.controlId}", "fileName: ${message.id}.hl7", "gzip: true"))
	reader := m.source("MAILBOX1", t.TempDir())
	st := openStore(t, t.TempDir())
	e := start(t, st, out, reader)
	eventually(t, "the inbox was listed", func() bool { return m.count("inbox") == 1 })
	want := ids("M", 3)
	send(t, dial(t, e.addr("adt"), nil), want...)
	eventually(t, "all are sent", func() bool { return len(m.Waiting("MAILBOX2")) == 3 })
	eventually(t, "the inbox is listed after a message was sent", func() bool { return m.count("inbox") == 2 })
	e.stop()
	start(t, openStore(t, t.TempDir()), m.source("MAILBOX2", dir))
	eventually(t, "all are filed", func() bool { return len(filed(t, dir)) == 3 })
	assert.Equal(t, want, filedIDs(t, dir))
	for i, content := range filed(t, dir) {
		assert.Equal(t, string(message(want[i])), content)
	}
}

// What may have arrived is asked for before it is sent again.
func TestAMESHMessageWhoseAnswerIsLostIsNotSentTwice(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]meshtest.Fault{
		"it was sent":     {Op: "send", DropAfter: true},
		"it was not sent": {Op: "send", Drop: true},
	} {
		m := newMESH(t)
		m.Script(want)
		e := start(t, openStore(t, t.TempDir()), channel("adt", m.to()))
		send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
		eventually(t, "both are sent", func() bool { return e.stats("adt").Sent == 2 })
		assert.Len(t, m.Waiting("MAILBOX2"), 2, fault)
		assert.Equal(t, 1, m.count("track"), fault)
		assert.Equal(t, 1, e.log.count("may have arrived"), fault)
	}
}

func TestARefusalOfMESHIsTheMessagesOrNot(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault  meshtest.Fault
		poison bool
	}{
		"the password is wrong":       {meshtest.Fault{Op: "send", Status: 403, Body: "{}", Times: 3}, false},
		"the server is out of order":  {meshtest.Fault{Op: "send", Status: 503, Body: meshtest.HTML, Times: 20}, false},
		"the workflow is not allowed": {meshtest.Fault{Op: "send", Status: 417, Body: `{"detail":[{"event":"SEND","code":"17","msg":"x"}]}`}, true},
	} {
		m := newMESH(t)
		m.Script(tt.fault)
		dest := m.to()
		dest.Queue.OnPoison, dest.Queue.MaxAttempts = "deadletter", 1
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
		send(t, dial(t, e.addr("adt"), nil), "M1")
		if tt.poison {
			eventually(t, name, func() bool { return e.stats("adt").Error == 1 })
			continue
		}
		eventually(t, name, func() bool { return e.log.count("delivery failed") > 0 })
		status, err := e.Status(ctx, "adt")
		require.NoError(t, err)
		assert.Zero(t, status.Statistics.Error, name)
	}
}
