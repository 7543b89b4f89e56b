package engine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// Nothing of a message or of an acknowledgement is in the log, at any level,
// whatever goes wrong with it.
func TestNoPatientDataIsLogged(t *testing.T) {
	const canary = "KANARI7"
	lab, down := newReceiver(t), newReceiver(t)
	down.down()
	lab.answers(func(id string) error {
		switch id {
		case "AR":
			return &mllp.Nak{Code: mllp.AR, Text: canary}
		case "PANIC":
			panic(canary)
		}
		return nil
	})
	dest := toTCP("lab", lab.addr)
	dest.Queue.OnPoison, dest.Queue.MaxAttempts = "deadletter", 2
	panicked := false
	inner := openStore(t, t.TempDir())
	st := &spy{inner, func(in store.Intake) error {
		if in.ControlID == "BOOM" && !panicked {
			panicked = true
			panic(string(in.Raw))
		}
		return nil
	}}
	e := start(t, st, channel("adt", dest, toFile("archive", t.TempDir()), toTCP("down", down.addr), toChannel("copy", "out")),
		channel("out", toFile("archive", t.TempDir())))
	withCanary := func(id string) []byte {
		return append(message(id), "NTE|1||"+canary+"||"+canary+"^"+canary+"\r"...)
	}
	conn := dial(t, e.addr("adt"), nil)
	for _, id := range []string{"OK", "AR", "PANIC"} {
		_, err := conn.Send(t.Context(), withCanary(id))
		require.NoError(t, err)
	}
	for _, bad := range [][]byte{
		append(withCanary("STRAY"), "NTE|2||\x1c"+canary+"\r"...),
		append(message("TWICE"), withCanary("X")...),
		[]byte("MSH|^~\\&|" + canary + "\r"),
		[]byte(canary + "|not HL7"),
		[]byte("<xml>" + canary + "</xml>"),
		withCanary("BOOM"),
	} {
		raw := append(append([]byte{0x0b}, bad...), 0x1c, '\r')
		sendRaw(t, e.addr("adt"), raw)
		sendRaw(t, e.addr("adt"), raw[:len(raw)-4])
	}
	eventually(t, "two dead letters", func() bool { return e.log.count("set aside as dead letter") == 2 })
	require.NoError(t, e.StopChannel(t.Context(), "adt"))
	e.stop()

	assert.NotContains(t, e.log.String(), canary)
	dead, err := inner.DeadLetters(t.Context(), "adt", "lab", 0, 10)
	require.NoError(t, err)
	require.Len(t, dead, 2)
	for _, d := range dead {
		assert.NotContains(t, d.LastError, canary)
		assert.Contains(t, string(d.Message.Raw), canary, "the positive control: it was there to be logged")
	}
	assert.True(t, panicked)
}
