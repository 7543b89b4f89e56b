package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// nacked returns the code with which a message was refused.
func nacked(t *testing.T, conn *mllp.Conn, msg []byte) mllp.AckCode {
	t.Helper()
	_, err := conn.Send(t.Context(), msg)
	sent, ok := errors.AsType[*mllp.SendError](err)
	require.True(t, ok, "%v", err)
	return sent.AckCode
}

// plain connects without a library.
func plain(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func frame(t *testing.T, msg []byte) []byte {
	t.Helper()
	out, err := mllp.AppendFrame(nil, msg)
	require.NoError(t, err)
	return out
}

// A channel with no source property but this one, and a file to look at.
func sourceWith(t *testing.T, set func(*config.TCPSource)) config.Channel {
	ch := channel("adt", toFile("archive", t.TempDir()))
	set(ch.Source.TCP)
	return ch
}

func TestNothingIsAnsweredWithResponseModeNone(t *testing.T) {
	t.Parallel()
	st := &faulty{Store: openStore(t, t.TempDir())}
	e := start(t, st, sourceWith(t, func(s *config.TCPSource) { s.ResponseMode = "NONE" }))
	conn := plain(t, e.addr("adt"))
	for i, id := range ids("M", 3) { // over one connection, which stays open
		_, err := conn.Write(frame(t, message(id)))
		require.NoError(t, err)
		eventually(t, "the message is stored", func() bool { return e.stats("adt").Received == int64(i+1) })
	}
	st.broken.Store(true)
	_, err := conn.Write(frame(t, message("M9")))
	require.NoError(t, err)
	assert.Empty(t, closed(t, conn), "what cannot be stored shows by the end of the connection alone")
	assert.EqualValues(t, 3, e.stats("adt").Received)
}

// gate holds intakes until it is opened.
type gate struct {
	store.Store
	entered chan struct{}
	open    chan struct{}
}

func (g *gate) Intake(ctx context.Context, in store.Intake) (int64, error) {
	g.entered <- struct{}{}
	<-g.open
	return g.Store.Intake(ctx, in)
}

func TestAnswersGoOverAConnectionOfTheirOwn(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	respondTo := func(s *config.TCPSource, when int, addr string) {
		host, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		s.RespondOnNewConnection, s.ResponseAddress = when, host
		s.ResponsePort, err = net.LookupPort("tcp", port)
		require.NoError(t, err)
	}
	frames := config.Framing{TransmissionMode: "FRAME", EndOfMessageBytes: []byte{3}}
	for i, secure := range []bool{false, true, true} {
		server, framing := new(mllp.Server), config.Framing{}
		if i == 2 {
			framing = frames
			server.Framing = framing.MLLP()
		}
		if secure {
			server.TLS = p.server()
		}
		ward := newInbox(t, server)
		e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) {
			respondTo(s, 1, ward.addr)
			s.Framing = framing
			if secure {
				s.ResponseTLS = p.client()
			}
		}))
		conn := plain(t, e.addr("adt"))
		way := framing.MLLP()
		sent, err := way.AppendFrame(nil, message("M1"))
		require.NoError(t, err)
		_, err = conn.Write(sent)
		require.NoError(t, err)
		eventually(t, "the answer arrives", func() bool { return len(ward.messages()) == 1 })
		ack, err := mllp.ParseAck([]byte(ward.messages()[0]))
		require.NoError(t, err)
		assert.Equal(t, mllp.Ack{Code: mllp.AA, ControlID: "M1"}, mllp.Ack{Code: ack.Code, ControlID: ack.ControlID})
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		assert.Empty(t, closed(t, conn), "nothing comes over the connection of the message")
	}

	// With 2, only where that connection has ended.
	ward := newInbox(t, new(mllp.Server))
	g := &gate{Store: openStore(t, t.TempDir()), entered: make(chan struct{}, 1), open: make(chan struct{}, 1)}
	e := start(t, g, sourceWith(t, func(s *config.TCPSource) { respondTo(s, 2, ward.addr) }))
	g.open <- struct{}{}
	send(t, dial(t, e.addr("adt"), nil), "M1")
	eventually(t, "it has come to the store", func() bool { return len(g.entered) == 1 })
	<-g.entered
	assert.Empty(t, ward.messages())
	lost := plain(t, e.addr("adt"))
	_, err := lost.Write(frame(t, message("M2")))
	require.NoError(t, err)
	eventually(t, "it is in hand", func() bool { return len(g.entered) == 1 })
	require.NoError(t, lost.(*net.TCPConn).SetLinger(0))
	require.NoError(t, lost.Close())
	g.open <- struct{}{}
	eventually(t, "the answer arrives elsewhere", func() bool { return len(ward.messages()) == 1 })
	assert.Contains(t, ward.messages()[0], "MSA|AA|M2")
}

func TestSourceAnswersInEnhancedMode(t *testing.T) {
	t.Parallel()
	for enhanced, want := range map[bool]mllp.AckCode{true: mllp.CA, false: mllp.AA} {
		e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.EnhancedAcknowledgement = enhanced }))
		reply, err := dial(t, e.addr("adt"), nil).Send(t.Context(), withAcks("M1", "AL", "NE"))
		require.NoError(t, err)
		assert.Equal(t, want, reply.Ack.Code)
	}
}

func TestBatchesAreTreatedAsConfigured(t *testing.T) {
	t.Parallel()
	batch := "BHS|^~\\&|HIS|WARD|ENGINE|LAB||||||B1\r" + string(message("M1")) + string(message("M2")) + "BTS|2\r"
	for policy, want := range map[string]struct {
		code     mllp.AckCode
		messages int64
	}{"": {mllp.AR, 0}, "reject": {mllp.AR, 0}, "deliver": {mllp.AA, 1}, "per-message": {mllp.AA, 2}, "last": {mllp.AA, 2}, "batch": {"", 2}} {
		e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.Batches = policy }))
		conn := plain(t, e.addr("adt"))
		_, err := conn.Write(frame(t, []byte(batch)))
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		reply, err := mllp.NewReader(conn, 0).Next()
		require.NoError(t, err, policy)
		if want.code == "" {
			assert.True(t, bytes.HasPrefix(reply, []byte("BHS")), policy)
		} else {
			ack, err := mllp.ParseAck(reply)
			require.NoError(t, err, policy)
			assert.Equal(t, want.code, ack.Code, policy)
		}
		eventually(t, "what is taken in of it, with "+policy, func() bool { return e.stats("adt").Received == want.messages })
	}
}

func TestLimitsOfASource(t *testing.T) {
	t.Parallel()
	e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.MaxConnections, s.MaxMessageSize = 1, 500 }))
	first := dial(t, e.addr("adt"), nil)
	send(t, first, "M1")
	assert.Empty(t, closed(t, plain(t, e.addr("adt"))), "one connection too many")
	_, err := first.Send(t.Context(), append(message("M2"), bytes.Repeat([]byte("NTE|1\r"), 100)...))
	require.Error(t, err, "a message too long")
	assert.EqualValues(t, 1, e.stats("adt").Received)

	e = start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.MaxConnectionsPerHost = 1 }))
	send(t, dial(t, e.addr("adt"), nil), "M1")
	assert.Empty(t, closed(t, plain(t, e.addr("adt"))), "one connection of a host too many")
}

func ranges(text ...string) []config.AddressRange {
	var all []config.AddressRange
	for _, one := range text {
		all = append(all, config.AddressRange{Prefix: netip.MustParsePrefix(one)})
	}
	return all
}

func TestAddressesThatMayConnect(t *testing.T) {
	t.Parallel()
	const proxied = "PROXY TCP4 %s 127.0.0.1 40000 6661\r\n"
	for _, tt := range []struct {
		name                 string
		allow, deny, proxies []config.AddressRange
		header               string
		served               bool
	}{
		{"all, by default", nil, nil, nil, "", true},
		{"who is allowed", ranges("127.0.0.0/8"), nil, nil, "", true},
		{"not who is not", ranges("10.0.0.0/8"), nil, nil, "", false},
		{"not who is denied, though allowed", ranges("127.0.0.0/8"), ranges("127.0.0.1/32"), nil, "", false},
		{"whom a proxy names", nil, ranges("203.0.113.0/24"), ranges("127.0.0.1/32"), fmt.Sprintf(proxied, "198.51.100.7"), true},
		{"not whom a proxy names and who is denied", nil, ranges("203.0.113.0/24"), ranges("127.0.0.1/32"), fmt.Sprintf(proxied, "203.0.113.5"), false},
		{"not whom somebody else names", nil, nil, nil, fmt.Sprintf(proxied, "198.51.100.7"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.Allow, s.Deny, s.TrustedProxies = tt.allow, tt.deny, tt.proxies }))
			conn := plain(t, e.addr("adt"))
			_, _ = conn.Write(append([]byte(tt.header), frame(t, message("M1"))...)) // may find the connection closed
			_ = conn.(*net.TCPConn).CloseWrite()
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			_, err := mllp.NewReader(conn, 0).Next()
			assert.Equal(t, tt.served, err == nil, "%v", err)
			assert.Equal(t, tt.served, e.stats("adt").Received == 1)
		})
	}
}

func TestCertificatesSayInWhoseNameTheirHoldersSend(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) {
		s.TLS = p.server()
		s.Senders = []mllp.SenderRule{{CommonName: "Ward 7", Applications: []string{"HIS"}, Facilities: []string{"WARD"}}}
	}))
	conn := dial(t, e.addr("adt"), p.client())
	send(t, conn, "M1")
	assert.Equal(t, mllp.AR, nacked(t, conn, bytes.Replace(message("M2"), []byte("|HIS|"), []byte("|LAB|"), 1)))
	p.ca.Client("Ward 8").Write(p.dir, "client")
	assert.Equal(t, mllp.AR, nacked(t, dial(t, e.addr("adt"), p.client()), message("M3")), "for whom there is no rule")
	assert.EqualValues(t, 1, e.stats("adt").Received)
}

func TestConnectionsWhoseAuthorityIsWithdrawnAreEnded(t *testing.T) {
	t.Parallel()
	for _, recheck := range []bool{true, false} {
		p := newPKI(t)
		e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.TLS, s.RecheckClients = p.server(), recheck }))
		conn := dial(t, e.addr("adt"), p.client())
		send(t, conn, "M1")
		other := testpki.NewCA(t, "Another CA")
		roots := p.server().TrustStorePath
		client := p.client()
		client.TrustStorePath = filepath.Join(p.dir, "still.crt")
		p.ca.Write(p.dir, "still.crt")
		other.Write(p.dir, filepath.Base(roots))
		eventually(t, "the old authority's are refused", func() bool {
			late, err := (&mllp.Dialer{TLS: client}).DialContext(t.Context(), "tcp", e.addr("adt"))
			if err != nil {
				return true
			}
			defer late.Close()
			_, err = late.Send(t.Context(), message("M2"))
			return err != nil
		})
		if recheck {
			eventually(t, "the connection in hand is ended", func() bool { return conn.Err() != nil })
		} else {
			send(t, conn, "M3")
		}
	}
}

// busy counts the intakes that run side by side, and lets none end before as many
// do as are wanted.
type busy struct {
	store.Store
	now, most, want atomic.Int64
	enough          chan struct{} // closed when most is want
}

func (b *busy) Intake(ctx context.Context, in store.Intake) (int64, error) {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for most := b.most.Load(); n > most; most = b.most.Load() {
		if b.most.CompareAndSwap(most, n) && n == b.want.Load() {
			close(b.enough)
		}
	}
	select {
	case <-b.enough:
	case <-time.After(patience):
		return 0, store.ErrFailed
	}
	return b.Store.Intake(ctx, in)
}

func TestMessagesOfDifferentPatientsAreTakenInSideBySide(t *testing.T) {
	t.Parallel()
	for _, parallel := range []int{8, 0} {
		st := &busy{Store: openStore(t, t.TempDir()), enough: make(chan struct{})}
		st.want.Store(int64(max(parallel, 1)))
		dir := t.TempDir()
		ch := channel("adt", toFile("archive", dir))
		if parallel > 0 {
			ch.Source.TCP.Parallel = parallel
			require.NoError(t, ch.Source.TCP.OrderKey.UnmarshalText([]byte("PID-3.1")))
		}
		e := start(t, st, ch)
		conn := plain(t, e.addr("adt"))
		var all []byte
		for i := range 64 {
			id := fmt.Sprintf("P%d-%03d", i%8, i)
			all = append(all, frame(t, bytes.Replace(message(id), []byte("||"+id+"^^^X"), fmt.Appendf(nil, "||P%d^^^X", i%8), 1))...)
		}
		_, err := conn.Write(all)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		answers := mllp.NewReader(conn, 0)
		for i := range 64 {
			reply, err := answers.Next()
			require.NoError(t, err)
			ack, err := mllp.ParseAck(reply)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("P%d-%03d", i%8, i), ack.ControlID, "acknowledgements leave in order")
		}
		eventually(t, "all messages are filed", func() bool { return e.stats("adt").Sent == 64 })
		last := map[string]string{}
		for _, id := range filedIDs(t, dir) {
			patient, _, _ := strings.Cut(id, "-")
			assert.Greater(t, id, last[patient], "those of a patient are in order")
			last[patient] = id
		}
		assert.EqualValues(t, max(parallel, 1), st.most.Load())
	}
}

func TestARepeatedMessageIsAnsweredAndNotTakenInAgain(t *testing.T) {
	t.Parallel()
	e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.Replay = &config.Replay{} }))
	send(t, dial(t, e.addr("adt"), nil), "M1", "M1", "M2")
	assert.EqualValues(t, 2, e.stats("adt").Received)
	require.NoError(t, e.StopChannel(t.Context(), "adt"))
	require.NoError(t, e.StartChannel(t.Context(), "adt"))
	conn := dial(t, e.addr("adt"), nil)
	send(t, conn, "M1") // the channel was away, not the process
	assert.EqualValues(t, 2, e.stats("adt").Received)
	assert.Equal(t, mllp.AR, nacked(t, conn, append(message("M1"), "NTE|1||another\r"...)))

	e = start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) { s.Replay = &config.Replay{DuplicateControlID: "deliver"} }))
	conn = dial(t, e.addr("adt"), nil)
	send(t, conn, "M1")
	_, err := conn.Send(t.Context(), append(message("M1"), "NTE|1||another\r"...))
	require.NoError(t, err)
	assert.EqualValues(t, 2, e.stats("adt").Received)

	// The positive control.
	e = start(t, openStore(t, t.TempDir()), channel("adt", toFile("archive", t.TempDir())))
	send(t, dial(t, e.addr("adt"), nil), "M1", "M1")
	assert.EqualValues(t, 2, e.stats("adt").Received)
}

func TestBadFramesAreNotedInQuarantine(t *testing.T) {
	t.Parallel()
	files := func(dir string) (notes, frames []string) {
		notes, _ = filepath.Glob(filepath.Join(dir, "*.json"))
		frames, _ = filepath.Glob(filepath.Join(dir, "*.frame"))
		return notes, frames
	}
	for _, keep := range []int{0, 12} {
		dir := filepath.Join(t.TempDir(), "bad")
		e := start(t, openStore(t, t.TempDir()), sourceWith(t, func(s *config.TCPSource) {
			s.Quarantine = &config.Quarantine{Directory: dir, Bytes: keep, MaxFiles: 2}
		}))
		conn := plain(t, e.addr("adt"))
		for range 3 { // cut off by the next frame, each of them
			_, err := conn.Write(frame(t, message("CUT"))[:120])
			require.NoError(t, err)
		}
		_, err := conn.Write(frame(t, message("M1")))
		require.NoError(t, err)
		eventually(t, "the good message is stored", func() bool { return e.stats("adt").Received == 1 })
		notes, frames := files(dir)
		require.Len(t, notes, 2, "no more than maxFiles")
		assert.Equal(t, 1, e.log.count("the quarantine is full"))
		text, err := os.ReadFile(notes[0])
		require.NoError(t, err)
		var note map[string]any
		require.NoError(t, json.Unmarshal(text, &note))
		assert.Equal(t, "truncated", note["reason"])
		assert.Equal(t, "CUT", note["controlId"])
		assert.EqualValues(t, 119, note["length"])
		assert.NotContains(t, string(text), "Patient")
		if keep == 0 {
			assert.Empty(t, frames, "no byte of them unless asked")
			continue
		}
		require.Len(t, frames, 2)
		kept, err := os.ReadFile(frames[0])
		require.NoError(t, err)
		assert.Equal(t, string(message("CUT")[:keep]), string(kept))
		info, err := os.Stat(frames[0])
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}
