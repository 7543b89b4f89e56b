package mllp_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

const sampleADT = "MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01^ADT_A01|MSG00001|P|2.5.1|||AL|NE||UNICODE UTF-8\r" +
	"EVN|A01|20250102030405\rPID|1||4711^^^HOSP||Doe^John\r"

func TestParseReadsTheFieldsOfMSH(t *testing.T) {
	var h mllp.Header
	require.NoError(t, h.Parse([]byte(sampleADT)))
	assert.Equal(t, mllp.Header{
		FieldSeparator: '|', EncodingChars: []byte(`^~\&`),
		SendingApplication: []byte("LAB"), SendingFacility: []byte("HOSP"),
		ReceivingApplication: []byte("EHR"), ReceivingFacility: []byte("CLINIC"),
		MessageType: []byte("ADT^A01^ADT_A01"), ControlID: []byte("MSG00001"),
		ProcessingID: []byte("P"), VersionID: []byte("2.5.1"),
		AcceptAck: []byte("AL"), ApplicationAck: []byte("NE"), CharacterSet: []byte("UNICODE UTF-8"),
	}, h)
	assert.False(t, h.IsAck())
}

func TestControlIDIsFoundWhateverTheSeparatorsAndSegmentEnds(t *testing.T) {
	for name, tt := range map[string]struct{ msg, id string }{
		"segments end with LF":         {strings.ReplaceAll(sampleADT, "\r", "\n"), "MSG00001"},
		"segments end with CRLF":       {strings.ReplaceAll(sampleADT, "\r", "\r\n"), "MSG00001"},
		"the header is all there is":   {"MSH|^~\\&|||||||ACK|X1", "X1"},
		"a byte order mark":            {"\xEF\xBB\xBF" + sampleADT, "MSG00001"},
		"other separators":             {"MSH#~!%@#A#B#C#D###ADT~A01#7^|1#P#2.5\r", "7^|1"},
		"five encoding characters":     {"MSH|^~\\&#|A|B|C|D|||ADT^A01|17|P|2.7\r", "17"},
		"one encoding character":       {"MSH|^|A|B|C|D|||ADT^A01|17|P|2.7\r", "17"},
		"components and repetitions":   {"MSH|^~\\&|||||||ADT|a^b&c~d|P|2.5\r", "a^b&c~d"},
		"escape sequences":             {"MSH|^~\\&|||||||ADT|a\\F\\b|P|2.5\r", "a\\F\\b"},
		"199 characters":               {"MSH|^~\\&|||||||ADT|" + strings.Repeat("9", 199) + "|P|2.5\r", strings.Repeat("9", 199)},
		"blanks around it are its own": {"MSH|^~\\&|||||||ADT| 12 |P|2.5\r", " 12 "},
		"not UTF-8":                    {"MSH|^~\\&|\xE4|||||A|ADT|\xC4\xFF|P|2.5\r", "\xC4\xFF"},
		"empty":                        {"MSH|^~\\&|||||||ADT||P|2.5\r", ""},
		"absent":                       {"MSH|^~\\&|A\r", ""},
		"batch":                        {"BHS|^~\\&|A|B|C|D|||name|comment|B17|B16\r", "B17"},
		"file of batches":              {"FHS|^~\\&|A|B|C|D|||name|comment|F17|F16\r", "F17"},
	} {
		t.Run(name, func(t *testing.T) {
			var h mllp.Header
			require.NoError(t, h.Parse([]byte(tt.msg)))
			assert.Equal(t, tt.id, string(h.ControlID))
		})
	}
}

func TestParseTellsABatchFromAMessage(t *testing.T) {
	var h mllp.Header
	require.NoError(t, h.Parse([]byte("BHS|^~\\&|A|B|C|D|20250102|sec|name|comment|B17|B16|x|y|z\r"+sampleADT)))
	assert.True(t, h.IsBatch)
	assert.Empty(t, h.MessageType)
	assert.Empty(t, h.VersionID)
	assert.Equal(t, "A", string(h.SendingApplication))
	require.NoError(t, h.Parse([]byte(sampleADT)))
	assert.False(t, h.IsBatch)
}

func TestIsAckKnowsAGeneralAcknowledgement(t *testing.T) {
	for msg, want := range map[string]bool{
		"MSH|^~\\&|||||||ACK|1\r":             true,
		"MSH|^~\\&|||||||ACK^A01^ACK|1\r":     true,
		"MSH#~!%@########\rMSH":               false,
		"MSH#~!%@#######ACK~A01#1\r":          true,
		"MSH|^~\\&|||||||ACKNOWLEDGE^A01|1\r": false,
	} {
		var h mllp.Header
		require.NoError(t, h.Parse([]byte(msg)))
		assert.Equal(t, want, h.IsAck(), "%q", msg)
	}
}

func TestParseRefusesWhatIsNoHeader(t *testing.T) {
	for name, msg := range map[string]string{
		"nothing":                        "",
		"a byte order mark alone":        "\xEF\xBB\xBF",
		"three letters":                  "MSH",
		"no encoding characters":         "MSH|",
		"empty MSH-2":                    "MSH||A|B",
		"another segment":                "PID|1||4711",
		"text":                           "MSHARED DRIVE",
		"lower case":                     strings.ToLower(sampleADT),
		"a blank first":                  " " + sampleADT,
		"segment end as separator":       "MSH\r^~\\&\rLAB",
		"NUL as separator":               "MSH\x00^~\\&\x00LAB",
		"high byte as separator":         "MSH\xA6^~\\&\xA6LAB",
		"the sign of a time zone":        "MSH-^~\\&-LAB",
		"letters as encoding":            "MSH|ABCD|LAB",
		"control in encoding":            "MSH|^~\x0B&|LAB",
		"six encoding characters":        "MSH|^~\\&#!|LAB",
		"JSON":                           `{"resourceType":"Patient"}`,
		"XML":                            "<?xml version=\"1.0\"?>",
		"start of a frame in the fields": "MSH|^~\\&|LAB|||||| |1\x0B|P|2.5\r",
		"end of a frame in the fields":   "MSH|^~\\&|LAB|||||| |1\x1C|P|2.5\r",
		"a segment over 64 KiB":          "MSH|^~\\&|" + strings.Repeat("x", 64<<10) + "|\r",
		"64 KiB without a segment end":   "MSH|^~\\&|" + strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			h := mllp.Header{ControlID: []byte("of an earlier message")}
			err := h.Parse([]byte(msg))
			require.ErrorIs(t, err, mllp.ErrNotHL7)
			assert.Zero(t, h)
			assert.NotContains(t, err.Error(), "LAB", "an error must not quote the message")
		})
	}
}

func TestAHeaderOf64KiBIsRead(t *testing.T) {
	prefix := "MSH|^~\\&|"
	msg := prefix + strings.Repeat("x", 64<<10-len(prefix))
	var h mllp.Header
	require.NoError(t, h.Parse([]byte(msg)))
	require.NoError(t, h.Parse([]byte(msg+"\rPID|")))
	require.Error(t, h.Parse([]byte(msg+"x\r")))
}

func TestParseDoesNotAllocate(t *testing.T) {
	msg := []byte(sampleADT)
	bad := [][]byte{nil, []byte("PID|"), []byte("MSH|^\x0B"), bytes.Repeat([]byte("MSH|^~\\&|"), 10_000)}
	var h mllp.Header
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		_ = h.Parse(msg)
		for _, b := range bad {
			_ = h.Parse(b)
		}
	}))
}
