package mllp_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

var ackTime = time.Date(2025, time.March, 4, 5, 6, 7, 0, time.FixedZone("", -(3*3600+30*60)))

// ack returns the acknowledgement of msg, in which CR is shown as a line end.
func ack(tb testing.TB, msg string, code mllp.AckCode, text string) string {
	tb.Helper()
	var h mllp.Header
	require.NoError(tb, h.Parse([]byte(msg)))
	out := mllp.AppendAck(nil, &h, code, text, []byte("K42"), ackTime)
	require.NotContains(tb, string(out), "\n")
	return strings.ReplaceAll(string(out), "\r", "\n")
}

func TestAnAcknowledgementIsAddressedToTheSender(t *testing.T) {
	assert.Equal(t, "MSH|^~\\&|EHR|CLINIC|LAB|HOSP|20250304050607-0330||ACK^A01^ACK|K42|P|2.5.1||||||UNICODE UTF-8\n"+
		"MSA|AA|MSG00001\n", ack(t, sampleADT, mllp.AA, ""))
}

func TestARefusalCarriesTextAndAnErrorSegment(t *testing.T) {
	assert.Equal(t, "MSH|^~\\&|EHR|CLINIC|LAB|HOSP|20250304050607-0330||ACK^A01^ACK|K42|P|2.5.1||||||UNICODE UTF-8\n"+
		"MSA|AE|MSG00001|cannot be stored\n"+
		"ERR|||207^Application internal error^HL70357|E\n", ack(t, sampleADT, mllp.AE, "cannot be stored"))
}

func TestAnAcknowledgementUsesTheSendersSeparators(t *testing.T) {
	assert.Equal(t, "MSH#~!%@$#C#D#A#B#20250304050607-0330##ACK~A01~ACK#K42#P#2.7\n"+
		"MSA#AR#7^|1#no such  patient\nERR###207~Application internal error~HL70357#E\n",
		ack(t, "MSH#~!%@$#A#B#C#D###ADT~A01#7^|1#P#2.7\r", mllp.AR, "no such# patient"))
	assert.Contains(t, ack(t, "MSH|^|A|B|C|D|||ADT^A01|9|P|2.4\r", mllp.AA, ""), "MSH|^|C|D|A|B|")
}

func TestTheMessageTypeOfAnAcknowledgementFollowsTheVersion(t *testing.T) {
	for version, want := range map[string]struct {
		msh string
		err bool
	}{
		"2.1":          {"||ACK|K42|P|2.1\n", false},
		"2.2":          {"||ACK|K42|P|2.2\n", false},
		"2.3":          {"||ACK^O01|K42|P|2.3\n", false},
		"2.3.1":        {"||ACK^O01|K42|P|2.3.1\n", false},
		"2.4":          {"||ACK^O01^ACK|K42|P|2.4\n", false},
		"2.5":          {"||ACK^O01^ACK|K42|P|2.5\n", true},
		"2.5^DEU&&ISO": {"||ACK^O01^ACK|K42|P|2.5^DEU&&ISO\n", true},
		"2.9":          {"||ACK^O01^ACK|K42|P|2.9\n", true},
		"3.0":          {"||ACK^O01^ACK|K42|P|3.0\n", true},
		"":             {"||ACK^O01^ACK|K42|P|2.5\n", true},
	} {
		t.Run("version "+version, func(t *testing.T) {
			got := ack(t, "MSH|^~\\&|||||||ORM^O01|1|P|"+version+"\r", mllp.AE, "")
			assert.Contains(t, got, want.msh)
			assert.Equal(t, want.err, strings.Contains(got, "\nERR|"))
		})
	}
	assert.Contains(t, ack(t, "MSH|^~\\&|||||||ORM|1|P|2.6\r", mllp.AA, ""), "||ACK|K42|P|2.6\n",
		"a message without an event has an acknowledgement without one")
}

func TestVersion21HasNoCommitCodes(t *testing.T) {
	for code, want := range map[mllp.AckCode]string{mllp.CA: "AA", mllp.CE: "AE", mllp.CR: "AR", mllp.AA: "AA"} {
		assert.Contains(t, ack(t, "MSH|^~\\&|||||||ORM|1|P|2.1\r", code, ""), "\nMSA|"+want+"|1\n")
	}
	assert.Contains(t, ack(t, "MSH|^~\\&|||||||ORM|1|P|2.2\r", mllp.CE, ""), "\nMSA|CE|1\n")
}

func TestAnUnknownCodeIsNeverWrittenAsAcceptance(t *testing.T) {
	for _, code := range []mllp.AckCode{"", "aa", "AAA", "AA|", "\r"} {
		assert.Contains(t, ack(t, sampleADT, code, ""), "\nMSA|AE|MSG00001\n")
	}
}

func TestTextAndIDCannotBreakTheAcknowledgement(t *testing.T) {
	var h mllp.Header
	require.NoError(t, h.Parse([]byte(sampleADT)))
	out := string(mllp.AppendAck(nil, &h, mllp.AE, "a|b^c~d\\e&f\rMSA|AA|\n\x0B\x1C\x7Fz\xC3\xA4", []byte("1|2\r3"), ackTime))
	assert.Contains(t, out, "|ACK^A01^ACK|1 2 3|P|")
	assert.Contains(t, out, "MSA|AE|MSG00001|a b c d e f MSA AA     z??\rERR|")

	long := mllp.AppendAck(nil, &h, mllp.AE, strings.Repeat("x", 500), nil, ackTime)
	assert.Contains(t, string(long), "MSA|AE|MSG00001|"+strings.Repeat("x", 80)+"\rERR|")
}

func TestAMessageThatCouldNotBeReadGetsAnEmptyMSA2(t *testing.T) {
	out := mllp.AppendAck([]byte("before"), &mllp.Header{}, mllp.AR, "", []byte("K42"), ackTime)
	assert.Equal(t, "beforeMSH|^~\\&|||||20250304050607-0330||ACK|K42||2.5\rMSA|AR|\rERR|||207^Application internal error^HL70357|E\r", string(out))
}

func TestAppendAckDoesNotAllocate(t *testing.T) {
	var h mllp.Header
	require.NoError(t, h.Parse([]byte(sampleADT)))
	buf, id := make([]byte, 0, 1024), []byte("K42")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		buf = mllp.AppendAck(buf[:0], &h, mllp.AE, "cannot be stored", id, ackTime)
	}))
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		mllp.AppendAck(nil, &h, mllp.AE, "cannot be stored", id, ackTime)
	}), 2.0)
}

func TestParseAckReadsTheDialectsOfPeers(t *testing.T) {
	want := mllp.Ack{Code: mllp.AE, ControlID: "M^1", Text: "wrong ward", ErrorCode: "103"}
	msh := "MSH|^~\\&|A|B|C|D|20250102||ACK^A01^ACK|77|P|2.5"
	for name, reply := range map[string]string{
		"as it should be":          msh + "\rMSA|AE|M^1|wrong ward\rERR|||103^Table value not found|E\r",
		"LF":                       msh + "\nMSA|AE|M^1|wrong ward\nERR|||103^Table value not found|E\n",
		"CRLF":                     msh + "\r\nMSA|AE|M^1|wrong ward\r\nERR|||103^Table value not found|E\r\n",
		"no last segment end":      msh + "\rMSA|AE|M^1|wrong ward\rERR|||103",
		"a byte order mark":        "\xEF\xBB\xBF" + msh + "\rMSA|AE|M^1|wrong ward\rERR|||103\r",
		"ERR as up to version 2.4": msh + "\rMSA|AE|M^1|wrong ward\rERR|PID^1^5^103&Table value not found&HL70357\r",
		"more of everything":       msh + "|||||||\rSFT|x\rMSA|AE|M^1|wrong ward|||\r\rERR|||103^^|E|||\rERR|||207|E\rQAK|1\r",
		"other separators":         "MSH#~!%@#A#B#C#D###ACK#77#P#2.5\rMSA#AE#M^1#wrong ward\rERR###103\r",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mllp.ParseAck([]byte(reply))
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestParseAckRefusesWhatDoesNotAcknowledge(t *testing.T) {
	msh := "MSH|^~\\&|SECRET|B|C|D|20250102||ACK^A01^ACK|77|P|2.5\r"
	for name, reply := range map[string]string{
		"nothing":             "",
		"no header":           "MSA|AA|1\r",
		"no MSA":              msh + "PID|1|SECRET\r",
		"MSA with other mark": msh + "MSA#AA#1\r",
		"MSA in a field":      msh + "NTE|1|MSA|AA|1\r",
		"two MSA":             msh + "MSA|AA|1\r" + msh + "MSA|AE|2\r",
		"empty MSA":           msh + "MSA|\r",
		"no code":             msh + "MSA||1\r",
		"lower case":          msh + "MSA|aa|1\r",
		"a word":              msh + "MSA|OK SECRET|1\r",
		"a letter too many":   msh + "MSA|AAA|1\r",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mllp.ParseAck([]byte(reply))
			require.Error(t, err)
			assert.Zero(t, got)
			assert.NotContains(t, err.Error(), "SECRET")
		})
	}
}

func TestAnErrorCodeIsShortAndPlain(t *testing.T) {
	for raw, want := range map[string]string{"103": "103", "E12x": "E12x", "John Doe": "", strings.Repeat("1", 21): "", "1\x1b[2J": ""} {
		got, err := mllp.ParseAck([]byte("MSH|^~\\&|\rMSA|AR|1\rERR|||" + raw + "\r"))
		require.NoError(t, err)
		assert.Equal(t, want, got.ErrorCode)
	}
}

// FuzzAcknowledgement reads any bytes as a message. Where they have a header,
// its acknowledgement must name the same id, to the byte, and be of exactly the
// segments that this package writes, whatever the header's fields hold.
func FuzzAcknowledgement(f *testing.F) {
	f.Add([]byte(sampleADT), "text")
	f.Add([]byte("MSH#~!%@$#A#B#C#D###ADT~A01#7^|1#P#2.7\r"), "a#b")
	f.Add([]byte("\xEF\xBB\xBFMSH|^~\\&|A\rMSA|AA|x|||||||1|P|2.5\nMSA|AA|1"), "\rMSA|AA|2\r")
	f.Add([]byte("BHS|^~\\&|A|B|C|D|||n|c|B17\r"), "")
	f.Add([]byte("MSH|^~\\&|||||||ADT|1\x1C\r"), "\x1C\r")
	f.Fuzz(func(t *testing.T, msg []byte, text string) {
		var h mllp.Header
		if err := h.Parse(msg); err != nil {
			require.Zero(t, h)
			return
		}
		for _, code := range []mllp.AckCode{mllp.AA, mllp.AE, mllp.CR} {
			out := mllp.AppendAck(nil, &h, code, text, []byte("K42"), ackTime)
			segments := bytes.Split(out, []byte("\r"))
			require.Contains(t, []int{3, 4}, len(segments), "%q", out)
			require.Equal(t, "MSH", string(segments[0][:3]))
			require.Equal(t, "MSA", string(segments[1][:3]))
			if len(segments) == 4 {
				require.Equal(t, "ERR", string(segments[2][:3]))
			}
			require.Empty(t, segments[len(segments)-1])
			require.NotContains(t, string(out), "\n")
			require.NotContains(t, string(out), "\x0B")
			require.NotContains(t, string(out), "\x1C")

			got, err := mllp.ParseAck(out)
			require.NoError(t, err)
			require.Equal(t, string(h.ControlID), got.ControlID)
			require.Equal(t, code.Accepted(), got.Code.Accepted())
			var again mllp.Header
			require.NoError(t, again.Parse(out))
			require.True(t, again.IsAck())
			require.Equal(t, "K42", string(again.ControlID))
			require.Equal(t, string(h.SendingApplication), string(again.ReceivingApplication))
			require.Equal(t, string(h.ReceivingFacility), string(again.SendingFacility))
			require.Equal(t, string(h.CharacterSet), string(again.CharacterSet))
		}
	})
}
