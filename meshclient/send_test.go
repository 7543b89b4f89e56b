package meshclient_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

func TestAMessageArrivesAsItWasSentWithAllThatIsSaidOfIt(t *testing.T) {
	for _, zip := range []bool{false, true} {
		s := serve(t, meshtest.Options{})
		a, b := connect(t, s, alice), connect(t, s, bob)
		m := message(noise(10_000, 1))
		m.LocalID, m.FileName, m.Subject, m.PartnerID, m.ContentType = "local-1", "../../rés.csv", "Subject", "P1", "text/csv"
		m.Encrypted, m.Gzip = true, zip
		sent, err := a.Send(bounded(t), m)
		require.NoError(t, err)
		assert.Equal(t, 1, sent.Chunks)
		sum := sha256.Sum256(noise(10_000, 1))
		assert.Equal(t, "sha256:"+hex.EncodeToString(sum[:]), sent.Checksum)

		page, err := b.Inbox(bounded(t), nil)
		require.NoError(t, err)
		require.Equal(t, []string{sent.MessageID}, page.MessageIDs)
		info, got := fetch(t, b, sent.MessageID)
		assert.True(t, bytes.Equal(noise(10_000, 1), got))
		assert.Equal(t, alice, info.Sender)
		assert.Equal(t, bob, info.Recipient)
		assert.Equal(t, "TEST_WORKFLOW", info.WorkflowID)
		assert.Equal(t, "local-1", info.LocalID)
		assert.Equal(t, "../../rés.csv", meshclient.UnescapeText(info.FileName))
		assert.Equal(t, "Subject", info.Subject)
		assert.Equal(t, "text/csv", info.ContentType)
		assert.Equal(t, sent.Checksum, info.Checksum)
		assert.True(t, info.Encrypted)
		assert.Equal(t, int64(10_000), info.Size)
		head, err := b.Head(bounded(t), sent.MessageID)
		require.NoError(t, err)
		assert.Equal(t, info.WorkflowID, head.WorkflowID)

		require.NoError(t, b.Acknowledge(bounded(t), sent.MessageID))
		require.NoError(t, b.Acknowledge(bounded(t), sent.MessageID), "to acknowledge again is to say it again")
		n, err := b.Count(bounded(t))
		require.NoError(t, err)
		assert.Zero(t, n)
		track, err := a.Track(bounded(t), sent.MessageID)
		require.NoError(t, err)
		assert.Equal(t, meshclient.StatusAcknowledged, track.Status)
		assert.False(t, track.Uploaded.IsZero())
		track, err = a.TrackLocal(bounded(t), "local-1")
		require.NoError(t, err)
		assert.Equal(t, sent.MessageID, track.MessageID)
		assert.Equal(t, meshclient.StatusAcknowledged, track.Status)
	}
}

func TestAMessageOfAnyLengthIsCutAndJoined(t *testing.T) {
	for _, zip := range []bool{false, true} {
		s := serve(t, small)
		a, b := connect(t, s, alice), connect(t, s, bob)
		for size, chunks := range map[int]int{1: 1, 999: 1, 1000: 1, 1001: 2, 2000: 2, 2001: 3, 10_500: 11} {
			m := chunked(noise(size, 2))
			m.Gzip, m.ContentType = zip, "application/pdf"
			sent, err := a.Send(bounded(t), m)
			require.NoError(t, err)
			assert.Equal(t, chunks, sent.Chunks)
			info, got := fetch(t, b, sent.MessageID)
			assert.True(t, bytes.Equal(noise(size, 2), got), "%d bytes", size)
			assert.Equal(t, chunks, info.Chunks)
			assert.Equal(t, "application/pdf", info.ContentType)
		}
	}
}

func TestAMessageCanGoWithoutAChecksumAndIsStillResumable(t *testing.T) {
	s := serve(t, small)
	from, to := connect(t, s, alice), connect(t, s, bob)
	for name, m := range map[string]*meshclient.Message{"one piece": message(noise(2500, 1)), "chunks": chunked(noise(2500, 1))} {
		var state meshclient.SendState
		m.NoChecksum = true
		m.Checkpoint = func(at meshclient.SendState) error { state = at; return nil }
		sent, err := from.Send(bounded(t), m)
		require.NoError(t, err, name)
		assert.Empty(t, sent.Checksum, name)
		info, got := fetch(t, to, sent.MessageID)
		assert.Empty(t, info.Checksum, name)
		assert.Equal(t, noise(2500, 1), got, name)
		assert.Equal(t, sent.Chunks > 1, state.SHA256 != "", "%s: a resume compares the content", name)
	}
	m := message([]byte("x"))
	m.NoChecksum, m.Checksum = true, "sha256:00"
	_, err := from.Send(bounded(t), m)
	assert.ErrorIs(t, err, meshclient.ErrInvalid)
}

func TestWhatMESHDoesNotTakeIsNotSent(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	for name, row := range map[string]struct {
		says   string
		change func(*meshclient.Message)
	}{
		"nothing":                   {"empty", func(m *meshclient.Message) { m.Content = strings.NewReader("") }},
		"no content":                {"Content", func(m *meshclient.Message) { m.Content = nil }},
		"small chunks":              {"5 MiB", func(m *meshclient.Message) { m.ChunkSize = 1000 }},
		"large chunks":              {"100000000", func(m *meshclient.Message) { m.ChunkSize = 100_000_001 }},
		"large compressed":          {"ChunkSize", func(m *meshclient.Message) { m.ChunkSize, m.Gzip = 100_000_000, true }},
		"too many":                  {"ChunkSize larger", func(m *meshclient.Message) { m.Content, m.ChunkSize, m.SmallChunks = sized(10_001), 1, true }},
		"too large":                 {"100 GB", func(m *meshclient.Message) { m.Content = sized(100_000_000_001) }},
		"no recipient":              {"To", func(m *meshclient.Message) { m.To = "" }},
		"no workflow":               {"WorkflowID", func(m *meshclient.Message) { m.WorkflowID = "" }},
		"a URL":                     {"http://", func(m *meshclient.Message) { m.To = "http://x" }},
		"a line break":              {"control", func(m *meshclient.Message) { m.Subject = "a\r\nMex-To: x" }},
		"a tab":                     {"control", func(m *meshclient.Message) { m.FileName = "a\tb" }},
		"a long subject":            {"Subject has 501 bytes, and may have 500", func(m *meshclient.Message) { m.Subject = strings.Repeat("x", 501) }},
		"long because it's escaped": {"FileName", func(m *meshclient.Message) { m.FileName = strings.Repeat("é", 100) }},
		"base64":                    {"base64", func(m *meshclient.Message) { m.Checksum = "a+b=" }},
	} {
		t.Run(name, func(t *testing.T) {
			m := message([]byte("x"))
			row.change(m)
			_, err := a.Send(bounded(t), m)
			e := failed(t, err)
			assert.Contains(t, e.Error(), row.says)
			assert.False(t, e.MaybeDelivered())
			assert.False(t, e.Retryable())
		})
	}
	assert.Empty(t, s.Requests())
}

// sized is content that is never read.
type sized int64

func (s sized) Size() int64                       { return int64(s) }
func (s sized) ReadAt([]byte, int64) (int, error) { return 0, errors.New("it was read") }

func TestASendWithoutAnAnswerIsNotRepeatedAndIsFoundByItsLocalID(t *testing.T) {
	for name, fault := range map[string]meshtest.Fault{
		"dropped after":     {Op: "send", DropAfter: true},
		"a gateway's 502":   {Op: "send", Status: 502, Body: meshtest.HTML},
		"SOAP with 500":     {Op: "send", Status: 500, Body: meshtest.SOAP},
		"the answer breaks": {Op: "send", Truncate: 5},
		"202 without an id": {Op: "send", Status: 202, Body: "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, meshtest.Options{})
			a := connect(t, s, alice)
			s.Script(fault)
			m := message([]byte("x"))
			_, err := a.Send(bounded(t), m)
			e := failed(t, err)
			assert.ErrorIs(t, e, meshclient.ErrOutcomeUnknown)
			assert.True(t, e.MaybeDelivered())
			assert.Len(t, ops(s, "send"), 1)
			require.NotEmpty(t, e.LocalID)
			if track, err := a.TrackLocal(bounded(t), e.LocalID); fault.Status == 0 {
				require.NoError(t, err)
				assert.Equal(t, meshclient.StatusAccepted, track.Status)
			} else {
				assert.ErrorIs(t, err, meshclient.ErrNotFound)
			}
		})
	}
}

func TestASendThatTheServerDidNotTakeIsRepeated(t *testing.T) {
	for _, status := range []int{425, 429, 503} {
		s := serve(t, meshtest.Options{})
		a := connect(t, s, alice)
		s.Script(meshtest.Fault{Op: "send", Status: status, Times: 2})
		_, err := a.Send(bounded(t), message([]byte("x")))
		require.NoError(t, err)
		assert.Len(t, ops(s, "send"), 3)
		assert.Len(t, s.Waiting(bob), 1)
	}
}

func TestAChunkThatFailsIsSentAgainAndTheOthersAreNot(t *testing.T) {
	for name, fault := range map[string]meshtest.Fault{
		"502":            {Op: "chunk", Chunk: 2, Status: 502, Times: 3},
		"dropped before": {Op: "chunk", Chunk: 2, Drop: true, Times: 2},
		"dropped after":  {Op: "chunk", Chunk: 2, DropAfter: true, Times: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, small)
			a, b := connect(t, s, alice), connect(t, s, bob)
			s.Script(fault)
			sent, err := a.Send(bounded(t), chunked(noise(2500, 3)))
			require.NoError(t, err)
			_, got := fetch(t, b, sent.MessageID)
			assert.True(t, bytes.Equal(noise(2500, 3), got))
			count := map[int]int{}
			for _, r := range ops(s, "chunk") {
				count[r.Chunk]++
			}
			assert.GreaterOrEqual(t, count[2], fault.Times+1)
			assert.Equal(t, 1, count[3])
		})
	}
}

func TestTheLastChunkWhoseAnswerWasLostIsAskedFor(t *testing.T) {
	s := serve(t, small)
	a := connect(t, s, alice)
	s.Script(meshtest.Fault{Op: "chunk", Chunk: 3, DropAfter: true})
	sent, err := a.Send(bounded(t), chunked(noise(2500, 3)))
	require.NoError(t, err, "the second try was answered 423, and tracking says accepted")
	assert.Equal(t, "accepted", s.Status(sent.MessageID))
	assert.Len(t, ops(s, "track"), 1)

	s.Script(meshtest.Fault{Op: "chunk", Chunk: 3, DropAfter: true}, meshtest.Fault{Op: "track", Status: 404})
	_, err = a.Send(bounded(t), chunked(noise(2500, 3)))
	e := failed(t, err)
	assert.ErrorIs(t, e, meshclient.ErrOutcomeUnknown)
	assert.True(t, e.MaybeDelivered())

	for _, first := range []meshtest.Fault{{DropAfter: true}, {Status: 503}} {
		first.Op, first.Chunk = "chunk", 3
		s.Script(first, meshtest.Fault{Op: "chunk", Chunk: 3, Status: 404}, meshtest.Fault{Op: "track", Status: 404})
		_, err = a.Send(bounded(t), chunked(noise(2500, 3)))
		assert.True(t, failed(t, err).MaybeDelivered(), "the refusal may be one of the second try only")
	}
	s.Script(meshtest.Fault{Op: "chunk", Chunk: 3, Status: 417}, meshtest.Fault{Op: "track", Status: 404})
	_, err = a.Send(bounded(t), chunked(noise(2500, 3)))
	assert.False(t, failed(t, err).MaybeDelivered(), "there was one try, and it was refused")

	s.Script(meshtest.Fault{Op: "chunk", Chunk: 3, Status: 502, Times: 4})
	_, err = a.Send(bounded(t), chunked(noise(2500, 3)))
	e = failed(t, err)
	assert.False(t, e.MaybeDelivered(), "tracking says that it is still uploading")
	assert.True(t, e.Retryable())
}

func TestACompletedMessageInTheMiddleIsAnError(t *testing.T) {
	s := serve(t, small)
	a := connect(t, s, alice)
	s.Script(meshtest.Fault{Op: "chunk", Chunk: 2, Status: 423, Body: `{"detail":[{"event":"SEND","code":"Message already accepted","msg":"x"}]}`})
	_, err := a.Send(bounded(t), chunked(noise(2500, 3)))
	e := failed(t, err)
	assert.ErrorIs(t, e, meshclient.ErrFinalised)
	assert.Equal(t, "Message already accepted", e.Code())
	assert.Len(t, ops(s, "chunk"), 1)
}

func TestAnInterruptedSendGoesOnInAnotherProcess(t *testing.T) {
	s := serve(t, small)
	a, b := connect(t, s, alice), connect(t, s, bob)
	stop := errors.New("power cut")
	var stored []byte
	m := chunked(noise(4500, 4))
	m.Gzip = true
	m.Checkpoint = func(state meshclient.SendState) error {
		if state.Next == 4 {
			return stop
		}
		var err error
		stored, err = json.Marshal(state)
		return err
	}
	_, err := a.Send(bounded(t), m)
	e := failed(t, err)
	require.ErrorIs(t, e, stop)
	assert.False(t, e.MaybeDelivered())
	assert.True(t, e.Retryable())

	var state meshclient.SendState
	require.NoError(t, json.Unmarshal(stored, &state))
	other := connect(t, s, alice)
	for name, bad := range map[string]func(*meshclient.Message, *meshclient.SendState){
		"longer":          func(m *meshclient.Message, _ *meshclient.SendState) { m.Content = bytes.NewReader(noise(4501, 4)) },
		"other content":   func(m *meshclient.Message, _ *meshclient.SendState) { m.Content = bytes.NewReader(noise(4500, 5)) },
		"another mailbox": func(_ *meshclient.Message, s *meshclient.SendState) { s.Mailbox = bob },
		"no such chunk":   func(_ *meshclient.Message, s *meshclient.SendState) { s.Next = 9 },
		"no such cut":     func(_ *meshclient.Message, s *meshclient.SendState) { s.ChunkSize = 0 },
	} {
		state, m := state, meshclient.Message{Content: bytes.NewReader(noise(4500, 4))}
		bad(&m, &state)
		m.Resume = &state
		_, err := other.Send(bounded(t), &m)
		assert.False(t, failed(t, err).Retryable(), name)
	}
	before := len(ops(s, "chunk"))
	sent, err := other.Send(bounded(t), &meshclient.Message{Content: bytes.NewReader(noise(4500, 4)), Resume: &state})
	require.NoError(t, err)
	var again []int
	for _, r := range ops(s, "chunk")[before:] {
		again = append(again, r.Chunk)
	}
	assert.Equal(t, []int{3, 4, 5}, again, "2 was sent before, and 3 as well, but that was not stored")
	_, got := fetch(t, b, sent.MessageID)
	assert.True(t, bytes.Equal(noise(4500, 4), got))
}

// The encoding is of the whole message: one that is resumed keeps it, whatever the
// new Message says.
func TestAllChunksOfAMessageHaveOneEncoding(t *testing.T) {
	stop := errors.New("power cut")
	for _, zip := range []bool{false, true} {
		s := serve(t, small)
		a, b := connect(t, s, alice), connect(t, s, bob)
		var state meshclient.SendState
		m := chunked(noise(3500, 4))
		m.Gzip = zip
		m.Checkpoint = func(at meshclient.SendState) error {
			if state = at; at.Next == 3 {
				return stop
			}
			return nil
		}
		_, err := a.Send(bounded(t), m)
		require.ErrorIs(t, err, stop)

		// The control: a server does not take another encoding for the rest.
		other := map[bool]string{false: "gzip", true: ""}[zip]
		status, text := post(t, s, "/outbox/"+state.MessageID+"/3", http.Header{"Mex-Chunk-Range": {"3:4"}, "Content-Encoding": {other}})
		assert.Equal(t, http.StatusExpectationFailed, status)
		assert.Contains(t, text, "encoding changed")

		before := len(ops(s, "chunk"))
		sent, err := a.Send(bounded(t), &meshclient.Message{Content: bytes.NewReader(noise(3500, 4)), Gzip: !zip, Resume: &state})
		require.NoError(t, err)
		rest := ops(s, "chunk")[before:]
		require.Len(t, rest, 2)
		for _, r := range append(rest, ops(s, "send")...) {
			assert.Equal(t, map[bool]string{false: "", true: "gzip"}[zip], r.Header.Get("Content-Encoding"))
		}
		_, got := fetch(t, b, sent.MessageID)
		assert.True(t, bytes.Equal(noise(3500, 4), got))
	}
}

// post sends alice's request by hand, past all of what a Client refuses.
func post(t *testing.T, s *meshtest.Server, path string, h http.Header) (status int, body string) {
	t.Helper()
	conf, err := s.Config(alice)
	require.NoError(t, err)
	pair, err := tls.X509KeyPair([]byte(conf.ClientCert), []byte(conf.ClientKey))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(s.CA()))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(bounded(t), http.MethodPost, s.URL+"/messageexchange/"+alice+path, strings.NewReader("x"))
	require.NoError(t, err)
	r.Header = h.Clone()
	r.Header.Set("Accept", "application/vnd.mesh.v2+json")
	r.Header.Set("Authorization", meshclient.Authorization(alice, "password", "TestKey", rand.Text(), 0, time.Now()))
	resp, err := transport.RoundTrip(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

func TestAStopInTheMiddleOfASendLeavesAStateToGoOnFrom(t *testing.T) {
	s := serve(t, small)
	a := connect(t, s, alice)
	ctx, cancel := context.WithCancel(bounded(t))
	var state meshclient.SendState
	m := chunked(noise(4500, 4))
	m.Checkpoint = func(now meshclient.SendState) error {
		if state = now; state.Next == 3 {
			cancel()
		}
		return nil
	}
	_, err := a.Send(ctx, m)
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, failed(t, err).MaybeDelivered())
	assert.Empty(t, s.Waiting(bob))
	m.Resume, m.Checkpoint = &state, nil
	sent, err := a.Send(bounded(t), m)
	require.NoError(t, err)
	_, got := fetch(t, connect(t, s, bob), sent.MessageID)
	assert.True(t, bytes.Equal(noise(4500, 4), got))
}

// changing is content that is another one when it is read the second time.
type changing struct {
	*bytes.Reader
	reads int
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	if off >= 2000 {
		c.reads++
	}
	n, err := c.Reader.ReadAt(p, off)
	if c.reads > 1 && off >= 2000 && n > 0 {
		p[n-1]++
	}
	return n, err
}

func TestContentThatChangesWhileItIsSentIsNeverCompleted(t *testing.T) {
	for _, zip := range []bool{false, true} {
		s := serve(t, small)
		a := connect(t, s, alice)
		m := chunked(nil)
		m.Content, m.Gzip = &changing{Reader: bytes.NewReader(noise(2500, 6))}, zip
		_, err := a.Send(bounded(t), m)
		e := failed(t, err)
		assert.ErrorIs(t, e, meshclient.ErrSourceChanged)
		assert.False(t, e.MaybeDelivered())
		assert.False(t, e.Retryable())
		assert.Empty(t, s.Waiting(bob))
	}
}

func TestAnswersOfBothVersionsToASendAreUnderstood(t *testing.T) {
	s := serve(t, small)
	a := connect(t, s, alice)
	for _, body := range []string{`{"messageID":"M9"}`, `{"message_id":"M9"}`} {
		s.Script(meshtest.Fault{Op: "send", Status: 202, Body: body})
		sent, err := a.Send(bounded(t), message([]byte("x")))
		require.NoError(t, err)
		assert.Equal(t, "M9", sent.MessageID)
	}
	for _, body := range []string{"null", "{}", "", `{"message_id":"M9"}`, `{"messageID":"M9","blockID":2}`} {
		for _, status := range []int{200, 202} {
			s.Script(meshtest.Fault{Op: "chunk", Chunk: 2, Status: status, Body: body})
			_, err := a.Send(bounded(t), chunked(noise(2500, 1)))
			require.NoError(t, err, body)
		}
	}
}

func TestAServerThatRefusesBeforeItHasReadEverythingIsHeard(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	for status, is := range map[int]error{413: meshclient.ErrTooLarge, 403: meshclient.ErrAuth} {
		s.Script(meshtest.Fault{Op: "send", Status: status, Body: meshtest.HTML})
		_, err := a.Send(bounded(t), message(noise(8<<20, 1)))
		e := failed(t, err)
		assert.ErrorIs(t, e, is)
		assert.False(t, e.MaybeDelivered())
	}
}

func TestTheFakeHasTheServicesRulesForChunks(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	_, err := a.Send(bounded(t), chunked(noise(2500, 1)))
	e := failed(t, err)
	assert.Equal(t, "InvalidHeaderChunks", e.Code(), "a chunk is shorter than 5 MB")
	assert.False(t, e.MaybeDelivered())
	m := message(noise(6<<20, 1))
	m.ChunkSize = 5 << 20
	sent, err := a.Send(bounded(t), m)
	require.NoError(t, err, "the last may be")
	assert.Equal(t, 2, sent.Chunks)
	m.To = "NOBODY"
	_, err = a.Send(bounded(t), m)
	assert.ErrorIs(t, err, meshclient.ErrUnregisteredRecipient)
}

func TestAContextThatEndsEndsASend(t *testing.T) {
	s := serve(t, small)
	a := connect(t, s, alice)
	ctx, cancel := context.WithCancel(bounded(t))
	m := chunked(noise(2500, 3))
	m.Checkpoint = func(meshclient.SendState) error { cancel(); return nil }
	_, err := a.Send(ctx, m)
	e := failed(t, err)
	assert.ErrorIs(t, e, context.Canceled)
	assert.False(t, e.MaybeDelivered())
	assert.Empty(t, s.Waiting(bob))
}
