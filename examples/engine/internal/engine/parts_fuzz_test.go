package engine_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/mllp"
)

const manyParts = "MSH|^~\\&|HIS^1.2^ISO|WARD|ENGINE|LAB|20260101||ADT^A01|M1|T|2.5\rPID|1||a1&b1^x~c1^y^z||Name\nPID|1||second\rPV1|1"

func TestOrderKeyIsTheFirstRepetitionOfTheFirstSegment(t *testing.T) {
	var h mllp.Header
	require.NoError(t, h.Parse([]byte(manyParts)))
	for path, want := range map[string]string{
		"PID-3": "a1&b1^x", "PID-3.1": "a1&b1", "PID-3.1.2": "b1", "PID-3.2": "x", "PID-5": "Name", "MSH-3.2": "1.2", "MSH-10": "M1",
		"PID-2": "", "PID-3.9": "", "PID-40": "", "PV1-1": "1", "PV2-1": "",
	} {
		var p config.HL7Path
		require.NoError(t, p.UnmarshalText([]byte(path)))
		assert.Equal(t, path, p.String())
		assert.Equal(t, want, string(engine.Find([]byte(manyParts), &h, p)), path)
	}
}

func FuzzPartsOfAMessage(f *testing.F) {
	f.Add([]byte(manyParts), "PID-3.1")
	f.Add([]byte("MSH|^~\\&|"), "MSH-18")
	f.Add([]byte("\xef\xbb\xbfMSH|^\rPID"), "PID-3.4.2")
	f.Fuzz(func(t *testing.T, msg []byte, path string) {
		var h mllp.Header
		if h.Parse(msg) != nil || h.IsBatch {
			return
		}
		var p config.HL7Path
		if p.UnmarshalText([]byte(path)) == nil {
			part := engine.Find(msg, &h, p)
			require.True(t, bytes.Contains(msg, part), "a key is a part of the message")
			require.False(t, bytes.ContainsAny(part, "\r\n"), "of one segment")
			require.NotContains(t, string(part), string(h.FieldSeparator), "of one field")
		}
		changed := engine.WithCharset(msg, h.FieldSeparator, mllp.CharsetUTF8)
		var after mllp.Header
		require.NoError(t, after.Parse(changed))
		require.Equal(t, "UNICODE UTF-8", string(after.CharacterSet))
		require.Equal(t, string(h.ControlID), string(after.ControlID))
		_, segments, _ := bytes.Cut(msg, []byte("\r"))
		require.True(t, bytes.HasSuffix(changed, segments), "nothing else is changed")
	})
}
