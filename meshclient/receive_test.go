package meshclient_test

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"  //nolint:gosec // as senders use it
	"crypto/sha1" //nolint:gosec // the same
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// deliver puts chunks into bob's inbox.
func deliver(s *meshtest.Server, h http.Header, encoding string, chunks ...[]byte) string {
	return s.Deliver(&meshtest.Message{From: alice, To: bob, WorkflowID: "W1", Header: h, ContentEncoding: encoding, Chunks: chunks})
}

func squeezed(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

// receive receives a message that may fail.
func receive(t *testing.T, c *meshclient.Client, id string, o *meshclient.ReceiveOptions) ([]byte, error) {
	t.Helper()
	var got bytes.Buffer
	_, err := c.Receive(bounded(t), id, &got, o)
	return got.Bytes(), err
}

func TestAChunkThatBreaksOffIsFetchedAgainAndWrittenOnce(t *testing.T) {
	for _, plain := range []bool{true, false} {
		s := serve(t, meshtest.Options{NoGzip: plain})
		b := connect(t, s, bob)
		id := deliver(s, nil, "", noise(300_000, 1), noise(300_000, 2), noise(10, 3))
		s.Script(meshtest.Fault{Op: "download", Chunk: 2, Truncate: 100_000}, meshtest.Fault{Op: "download", Chunk: 2, Truncate: 200_000})
		_, got := fetch(t, b, id)
		assert.True(t, bytes.Equal(bytes.Join([][]byte{noise(300_000, 1), noise(300_000, 2), noise(10, 3)}, nil), got))
		assert.Len(t, ops(s, "download"), 5)
	}
}

func TestAChunkThatIsAnotherTheSecondTimeIsRefused(t *testing.T) {
	s := serve(t, meshtest.Options{NoGzip: true})
	b := connect(t, s, bob)
	content := noise(100_000, 1)
	id := deliver(s, nil, "", content)
	again := func(body []byte) meshtest.Fault {
		return meshtest.Fault{Op: "download", Status: 200, Header: http.Header{"Mex-Chunk-Range": {"1:1"}}, Body: string(body)}
	}
	s.Script(meshtest.Fault{Op: "download", Truncate: 50_000}, again(noise(100_000, 2)))
	_, err := receive(t, b, id, nil)
	assert.ErrorIs(t, err, meshclient.ErrBadAnswer)
	s.Script(meshtest.Fault{Op: "download", Truncate: 50_000}, again(content))
	got, err := receive(t, b, id, nil)
	require.NoError(t, err, "the control")
	assert.True(t, bytes.Equal(content, got))
}

func TestAnInterruptedReceiveGoesOnInAnotherProcess(t *testing.T) {
	s := serve(t, small)
	a, b := connect(t, s, alice), connect(t, s, bob)
	sent, err := a.Send(bounded(t), chunked(noise(4500, 4)))
	require.NoError(t, err)
	var file bytes.Buffer
	var stored []byte
	stop := errors.New("power cut")
	_, err = b.Receive(bounded(t), sent.MessageID, &file, &meshclient.ReceiveOptions{Checkpoint: func(state meshclient.ReceiveState) error {
		if state.Next == 4 {
			return stop
		}
		var err error
		stored, err = json.Marshal(state)
		return err
	}})
	require.ErrorIs(t, failed(t, err), stop)
	var state meshclient.ReceiveState
	require.NoError(t, json.Unmarshal(stored, &state))
	assert.Equal(t, 3, state.Next)
	file.Truncate(int(state.Offset))

	before := len(ops(s, "download"))
	info, err := connect(t, s, bob).Receive(bounded(t), sent.MessageID, &file, &meshclient.ReceiveOptions{Resume: &state})
	require.NoError(t, err)
	assert.True(t, bytes.Equal(noise(4500, 4), file.Bytes()))
	assert.Equal(t, int64(4500), info.Size)
	assert.Len(t, ops(s, "download")[before:], 3, "3, 4 and 5")

	state.Hash = noise(10, 1)
	_, err = receive(t, b, sent.MessageID, &meshclient.ReceiveOptions{Resume: &state})
	assert.ErrorIs(t, err, meshclient.ErrInvalid)
	state.Chunks = 9
	_, err = receive(t, b, sent.MessageID, &meshclient.ReceiveOptions{Resume: &state})
	assert.ErrorIs(t, err, meshclient.ErrBadAnswer)
}

func TestWhatTheSenderSaysOfCompressionChangesNothing(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	packed := squeezed([]byte("a file that is gzip by itself"))
	for name, row := range map[string]struct {
		id   string
		want []byte
	}{
		"undeclared gzip": {deliver(s, http.Header{"Mex-Content-Compressed": {"TRUE"}}, "", packed), packed},
		"declared gzip":   {deliver(s, nil, "gzip", packed), []byte("a file that is gzip by itself")},
		"nothing at all":  {deliver(s, nil, "", nil), nil},
	} {
		got, err := receive(t, b, row.id, nil)
		require.NoError(t, err, name)
		assert.Equal(t, row.want, got, name)
	}
}

func TestContentThatIsCutOffOrHasMoreBehindItIsAnError(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	packed := squeezed(noise(1000, 1))
	for name, chunk := range map[string][]byte{
		"cut off":     packed[:len(packed)-9],
		"more behind": append(bytes.Clone(packed), "garbage that is long enough"...),
		"a wrong sum": append(bytes.Clone(packed[:len(packed)-8]), 1, 2, 3, 4, 0xe8, 3, 0, 0),
		"no gzip":     []byte("<html>"),
	} {
		_, err := receive(t, b, deliver(s, nil, "gzip", chunk), nil)
		assert.Error(t, err, name)
	}
	_, err := receive(t, b, deliver(s, nil, "gzip", packed), nil)
	assert.NoError(t, err)
	assert.Empty(t, ops(s, "acknowledge"))
}

func TestAGzipBombIsStopped(t *testing.T) {
	s := serve(t, meshtest.Options{NoGzip: true})
	b := connect(t, s, bob, func(c *meshclient.Config) { c.MaxMessageBytes = 3 << 20 })
	bomb := squeezed(make([]byte, 8<<20))
	got, err := receive(t, b, deliver(s, nil, "gzip", bomb), nil)
	e := failed(t, err)
	assert.ErrorIs(t, e, meshclient.ErrTooLarge)
	assert.False(t, e.Retryable())
	assert.LessOrEqual(t, len(got), 3<<20)
	assert.Len(t, ops(s, "download"), 1)

	half := noise(2<<20, 1)
	_, err = receive(t, b, deliver(s, nil, "", half, half), nil)
	assert.ErrorIs(t, err, meshclient.ErrTooLarge, "the limit is for the whole message")
}

func TestAMessageThatIsNotWhatItsChecksumSaysIsAnError(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	content := noise(1000, 1)
	m5, s1 := md5.Sum(content), sha1.Sum(content) //nolint:gosec // as senders use them
	for sum, good := range map[string]bool{
		hex.EncodeToString(m5[:]):                      true,
		"SHA-1: " + hex.EncodeToString(s1[:]):          true,
		"nothing that is known":                        true,
		"sha256:" + hex.EncodeToString(m5[:]):          true, // not of that length: not known either
		"d41d8cd98f00b204e9800998ecf8427e":             false,
		"SHA1:" + hex.EncodeToString(make([]byte, 20)): false,
	} {
		id := deliver(s, http.Header{"Mex-Content-Checksum": {sum}}, "", content)
		_, err := receive(t, b, id, nil)
		if good {
			assert.NoError(t, err, sum)
			continue
		}
		assert.ErrorIs(t, err, meshclient.ErrChecksum, sum)
		_, err = receive(t, b, id, &meshclient.ReceiveOptions{IgnoreChecksum: true})
		assert.NoError(t, err)
	}
}

func TestAReportIsNotAMessage(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	m := message([]byte("x"))
	m.LocalID = "local-7"
	sent, err := a.Send(bounded(t), m)
	require.NoError(t, err)
	require.True(t, s.Undeliverable(sent.MessageID, "14", "Message not collected by recipient after 5 days"))
	page, err := a.Inbox(bounded(t), nil)
	require.NoError(t, err)
	require.Len(t, page.MessageIDs, 1)
	info, got := fetch(t, a, page.MessageIDs[0])
	assert.Empty(t, got)
	require.NotNil(t, info.Report)
	assert.Equal(t, sent.MessageID, info.Report.LinkedMessageID)
	assert.Equal(t, "14", info.Report.Code)
	assert.Equal(t, "SEND", info.Report.Event)
	assert.NotEmpty(t, info.Report.Description)
	assert.Equal(t, "local-7", info.LocalID)
	assert.Equal(t, "TEST_WORKFLOW", info.WorkflowID)
	require.NoError(t, a.Acknowledge(bounded(t), page.MessageIDs[0]))
	assert.Empty(t, s.Waiting(alice))
}

const day = 24 * time.Hour

func TestAMessageThatNobodyCollectsExpiresWithAReport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, ln := inMemory(t, meshtest.Options{})
		a := connect(t, s, alice, func(c *meshclient.Config) { c.NetDialer = ln })
		id := deliver(s, nil, "", []byte("x"))
		time.Sleep(4 * day)
		assert.Equal(t, "accepted", s.Status(id))
		require.NoError(t, a.Handshake(t.Context()))
		time.Sleep(2 * day)
		page, err := a.Inbox(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, page.MessageIDs, 1)
		info, err := a.Receive(t.Context(), page.MessageIDs[0], io.Discard, nil)
		require.NoError(t, err)
		require.NotNil(t, info.Report)
		assert.Equal(t, id, info.Report.LinkedMessageID)
		track, err := a.Track(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, meshclient.StatusUndeliverable, track.Status)
		assert.False(t, track.Success)
		time.Sleep(30 * day)
		require.NoError(t, a.Handshake(t.Context()))
		_, err = a.Track(t.Context(), id)
		assert.ErrorIs(t, err, meshclient.ErrNotFound)
	})
}

func TestAMessageThatIsGoneUnknownOrAnothersIsToldApart(t *testing.T) {
	s := serve(t, small)
	a, b := connect(t, s, alice), connect(t, s, bob)
	_, err := receive(t, b, "20260101000000000001", nil)
	assert.ErrorIs(t, err, meshclient.ErrNotFound)
	assert.ErrorIs(t, b.Acknowledge(bounded(t), "20260101000000000001"), meshclient.ErrNotFound)
	id := deliver(s, nil, "", []byte("x"))
	_, err = receive(t, a, id, nil)
	assert.ErrorIs(t, err, meshclient.ErrAuth)
	assert.ErrorIs(t, a.Acknowledge(bounded(t), id), meshclient.ErrAuth)
	_, err = b.Track(bounded(t), id)
	assert.ErrorIs(t, err, meshclient.ErrNotFound)
	require.NoError(t, b.Acknowledge(bounded(t), id))
	_, err = receive(t, b, id, nil)
	e := failed(t, err)
	assert.ErrorIs(t, e, meshclient.ErrGone)
	assert.False(t, e.Retryable())

	m := chunked(noise(2500, 1))
	m.Checkpoint = func(state meshclient.SendState) error {
		_, err := receive(t, b, state.MessageID, nil)
		assert.ErrorIs(t, err, meshclient.ErrGone, "it is still being uploaded")
		return nil
	}
	_, err = a.Send(bounded(t), m)
	require.NoError(t, err)
}

func TestAnswersThatDoNotFitTogetherAreRefused(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	id := deliver(s, nil, "", []byte("1"), []byte("2"))
	for name, fault := range map[string]meshtest.Fault{
		"another chunk":  {Chunk: 2, Status: 200, Header: http.Header{"Mex-Chunk-Range": {"1:2"}}},
		"another number": {Chunk: 2, Status: 206, Header: http.Header{"Mex-Chunk-Range": {"2:3"}}},
		"no range":       {Chunk: 2, Status: 200},
		"no such range":  {Chunk: 1, Status: 206, Header: http.Header{"Mex-Chunk-Range": {"one of two"}}},
		"more to come":   {Chunk: 1, Status: 206},
		"another one":    {Chunk: 1, Status: 200, Header: http.Header{"Mex-Messageid": {"another"}}},
		"an encoding":    {Chunk: 1, Status: 200, Header: http.Header{"Content-Encoding": {"br"}}},
	} {
		fault.Op = "download"
		s.Script(fault)
		_, err := receive(t, b, id, nil)
		assert.ErrorIs(t, err, meshclient.ErrBadAnswer, name)
	}
	_, got := fetch(t, b, id)
	assert.Equal(t, "12", string(got))
}

func TestAWriterThatFailsEndsAReceive(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	full := errors.New("disk full")
	_, err := b.Receive(bounded(t), deliver(s, nil, "", []byte("x")), writerFunc(func([]byte) (int, error) { return 0, full }), nil)
	assert.ErrorIs(t, err, full)
	assert.True(t, failed(t, err).Retryable())
	assert.Len(t, s.Waiting(bob), 1)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
