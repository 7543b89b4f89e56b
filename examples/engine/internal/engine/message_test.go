package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

func TestInjectedMessagesAreKeptByteForByte(t *testing.T) {
	dir := t.TempDir()
	e := start(t, openStore(t, t.TempDir()), channel("adt", toFile("archive", dir), toFile("second", t.TempDir())))
	texts := []string{string(message("M1")), "<a>\r\n\xe4\x00</a>", `{"a": 1.0}`, "", "\x0bMSH\x1c\r"}
	for _, text := range texts {
		id, err := e.Inject(t.Context(), "adt", engine.Injected{
			Raw: []byte(text), Destinations: []string{"archive"}, Notes: map[string]string{"a": "b", "dicomObject": "adt/x.dcm", "charsetEncoding": "raw", "reprocessedFrom": "1"},
		})
		require.NoError(t, err)
		m, err := e.Message(t.Context(), "adt", id)
		require.NoError(t, err)
		assert.Equal(t, text, string(m.Raw))
		assert.JSONEq(t, `{"a":"b"}`, m.Source.Text())
	}
	eventually(t, "filed", func() bool { return len(filed(t, dir)) == len(texts) })
	assert.Equal(t, texts, filed(t, dir))
	list, err := e.Messages(t.Context(), "adt", store.Filter{ControlID: "M1"}, 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Len(t, list[0].Deliveries, 1, "for one destination")
	n, err := e.CountMessages(t.Context(), "adt", store.Filter{})
	require.NoError(t, err)
	assert.EqualValues(t, len(texts), n)

	once := engine.Injected{Raw: message("M2"), Once: store.Once{Key: []byte("dispatch 1"), For: time.Hour}}
	first, err := e.Inject(t.Context(), "adt", once)
	require.NoError(t, err)
	again, err := e.Inject(t.Context(), "adt", once)
	require.NoError(t, err)
	assert.Equal(t, first, again)
}

func TestMessagesAreNotInjectedWhereTheyWouldStay(t *testing.T) {
	lab := newReceiver(t)
	e := start(t, openStore(t, t.TempDir()), channel("adt", toTCP("lab", lab.addr)))
	inject := func(in engine.Injected) error {
		_, err := e.Inject(t.Context(), "adt", in)
		return err
	}
	require.ErrorIs(t, inject(engine.Injected{Raw: []byte("a\x1c\rb")}), engine.ErrUnpassable)
	require.ErrorIs(t, inject(engine.Injected{Raw: []byte("MSH|^~\\&|||||20260101||ACK|1|P|2.5\rMSA|AA|1\r")}), engine.ErrUnpassable)
	require.ErrorIs(t, inject(engine.Injected{Raw: message("M1"), Destinations: []string{"nobody"}}), engine.ErrNoDestination)
	_, err := e.Inject(t.Context(), "nope", engine.Injected{Raw: message("M1")})
	require.ErrorIs(t, err, engine.ErrUnknownChannel)
	for _, stop := range []func() error{
		func() error { return e.PauseChannel(t.Context(), "adt") },
		func() error { return e.StopChannel(t.Context(), "adt") },
		func() error { return e.UndeployChannel(t.Context(), "adt") },
	} {
		require.NoError(t, stop())
		var refused *engine.StateError
		require.ErrorAs(t, inject(engine.Injected{Raw: message("M1")}), &refused)
	}
	assert.Zero(t, e.stats("adt").Received)
}

func TestDeadLettersGoBackAndMessagesAreProcessedAgain(t *testing.T) {
	lab := newReceiver(t)
	lab.answers(func(string) error { return &mllp.Nak{Code: mllp.AR, Text: "no"} })
	dest := toTCP("lab", lab.addr)
	dest.Queue.OnPoison = "deadletter"
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest, toFile("archive", t.TempDir())))
	want := ids("M", 5)
	e.inject("adt", want...)
	eventually(t, "all are dead", func() bool { return e.stats("adt").Error == 5 })
	dead, err := e.DeadLetters(t.Context(), "adt", "lab", 0, 10)
	require.NoError(t, err)
	require.Len(t, dead, 5)
	assert.Contains(t, dead[0].LastError, "AR")

	_, err = e.Requeue(t.Context(), "adt", "archive", dead[2].Seq)
	require.ErrorIs(t, err, store.ErrNotFound, "of another queue")
	_, err = e.Requeue(t.Context(), "adt", "nobody", dead[2].Seq)
	require.ErrorIs(t, err, engine.ErrNoDestination)
	lab.answers(nil)
	_, err = e.Requeue(t.Context(), "adt", "lab", dead[2].Seq)
	require.NoError(t, err)
	eventually(t, "it is delivered", func() bool { return len(lab.received()) == 1 })
	_, err = e.Requeue(t.Context(), "adt", "lab", dead[2].Seq)
	require.ErrorIs(t, err, store.ErrNotFound, "a second time")
	n, err := e.RequeueAll(t.Context(), "adt", "lab")
	require.NoError(t, err)
	assert.Equal(t, 4, n)
	eventually(t, "all are delivered", func() bool { return len(lab.received()) == 5 })
	assert.Equal(t, []string{"M0002", "M0000", "M0001", "M0003", "M0004"}, lab.received())

	again, err := e.Reprocess(t.Context(), "adt", dead[0].Message.ID, []string{"lab"})
	require.NoError(t, err)
	assert.Greater(t, again, dead[4].Message.ID)
	eventually(t, "delivered again", func() bool { return len(lab.received()) == 6 })
	m, err := e.Message(t.Context(), "adt", again)
	require.NoError(t, err)
	assert.Equal(t, message("M0000"), m.Raw)
	notes, err := m.Source.Notes()
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint(dead[0].Message.ID), notes[engine.ReprocessedNote])
	_, err = e.Reprocess(t.Context(), "adt", 1000, nil)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.NoError(t, e.PauseChannel(t.Context(), "adt"))
	_, err = e.Reprocess(t.Context(), "adt", again, nil)
	require.NoError(t, err, "a paused channel delivers")
}

// The memory of messages outlasts the process, unlike that of answers.
func TestARepeatedMessageIsAnsweredToTheByteAfterARestart(t *testing.T) {
	dir := t.TempDir()
	source := sourceWith(t, func(s *config.TCPSource) { s.Replay = &config.Replay{} })
	another := append(message("M1"), "NTE|1||another\r"...)
	answer := func(e *running, msg []byte) string {
		t.Helper()
		reply, err := dial(t, e.addr("adt"), nil).Send(t.Context(), msg)
		require.NoError(t, err)
		return string(reply.Raw)
	}
	first := ""
	for range 3 {
		st := openStore(t, dir)
		e := start(t, st, source)
		got := answer(e, message("M1"))
		if first == "" {
			first = got
			assert.NotEqual(t, first, answer(e, message("M2")))
		}
		assert.Equal(t, first, got)
		assert.Equal(t, mllp.AR, nacked(t, dial(t, e.addr("adt"), nil), another))
		assert.EqualValues(t, 2, e.stats("adt").Received)
		e.stop()
		require.NoError(t, st.Close())
	}

	// Where another message with the same MSH-10 is taken, so it is after a restart.
	source.Source.TCP.Replay.DuplicateControlID = "deliver"
	st := openStore(t, dir)
	e := start(t, st, source)
	assert.NotEqual(t, first, answer(e, another))
	assert.EqualValues(t, 3, e.stats("adt").Received)
	e.stop()

	// The positive control: without a memory each answer is a new one.
	source.Source.TCP.Replay = nil
	e = start(t, st, source)
	assert.NotEqual(t, first, answer(e, message("M1")))
	assert.EqualValues(t, 4, e.stats("adt").Received)
}

// A message that was stored, and whose answer was not remembered before the process
// ended, was never answered. It is stored once and answered anew.
func TestAMessageThatWasStoredAndNotAnsweredIsTakenInOnce(t *testing.T) {
	st := &forgetful{Store: openStore(t, t.TempDir())}
	source := sourceWith(t, func(s *config.TCPSource) { s.Replay = &config.Replay{} })
	for range 2 { // of two engines the second has nothing in memory
		e := start(t, st, source)
		send(t, dial(t, e.addr("adt"), nil), "M1")
		assert.EqualValues(t, 1, e.stats("adt").Received)
		e.stop()
	}
}

// forgetful remembers no answer.
type forgetful struct{ store.Store }

func (forgetful) Remember(context.Context, string, store.Once, []byte) error { return store.ErrFull }

// While it cannot be told whether a message was answered before, none is taken in.
func TestAMessageIsNotTakenInWhileNobodyKnowsWhetherItIsRepeated(t *testing.T) {
	st := &amnesiac{Store: openStore(t, t.TempDir())}
	source := sourceWith(t, func(s *config.TCPSource) { s.Replay = &config.Replay{} })
	e := start(t, st, source)
	assert.Equal(t, mllp.AE, nacked(t, dial(t, e.addr("adt"), nil), message("M1")))
	assert.Zero(t, e.stats("adt").Received)
}

type amnesiac struct{ store.Store }

func (amnesiac) Recall(context.Context, string, []byte) ([]byte, error) { return nil, store.ErrFailed }
