package mllp_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

const (
	msgC     = "MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102||ADT^A08|id3|P|2.5\rPID|3\r"
	batchOf3 = "FHS|^~\\&|LAB|HOSP|EHR|CLINIC|20260101|||c|f1\rBHS|^~\\&|LAB|HOSP|EHR|CLINIC|20260101||n||b1\r" + msgA + msgB + msgC + "BTS|3\rFTS|1\r"
)

// refusing returns a handler that refuses one message.
func refusing(id string) mllp.Handler {
	return mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
		if string(r.Header.ControlID) == id {
			return nil, errors.New("x")
		}
		return nil, nil
	})
}

func TestABatchIsAnsweredAsThePolicySays(t *testing.T) {
	all := []string{msgA, msgB, msgC}
	for _, x := range []exchange{
		{name: "each", srv: &mllp.Server{Batches: mllp.PolicyPerMessage}, in: frame(batchOf3), delivered: all, answers: []string{"AA id1", "AA id2", "AA id3"}},
		{
			name: "each, one fails", srv: &mllp.Server{Batches: mllp.PolicyPerMessage, Handler: refusing("id2")}, in: frame(batchOf3),
			delivered: all, answers: []string{"AA id1", "AE id2", "AA id3"}, told: []string{"handler_failed"},
		},
		{name: "the last", srv: &mllp.Server{Batches: mllp.PolicyLast}, in: frame(batchOf3), delivered: all, answers: []string{"AA id3"}},
		{
			name: "the last, one fails before", srv: &mllp.Server{Batches: mllp.PolicyLast, Handler: refusing("id2")}, in: frame(batchOf3),
			delivered: all[:2], answers: []string{"AE id2"}, told: []string{"handler_failed"},
		},
		{
			name: "no header but FHS, no counts", srv: &mllp.Server{Batches: mllp.PolicyPerMessage}, in: frame("FHS|^~\\&|A\r" + msgA + msgB + "FTS\r"),
			delivered: all[:2], answers: []string{"AA id1", "AA id2"},
		},
		{
			name: "two batches in a file", srv: &mllp.Server{Batches: mllp.PolicyPerMessage},
			in:        frame("FHS|^~\\&\rBHS|^~\\&\r" + msgA + "BTS|1\rBHS|^~\\&\r" + msgB + msgC + "BTS|2\rFTS|2\r"),
			delivered: all, answers: []string{"AA id1", "AA id2", "AA id3"},
		},
		{
			name: "segments that end with LF", srv: &mllp.Server{Batches: mllp.PolicyPerMessage}, in: frame(strings.ReplaceAll(batchOf3, "\r", "\n")),
			delivered: []string{strings.ReplaceAll(msgA, "\r", "\n"), strings.ReplaceAll(msgB, "\r", "\n"), strings.ReplaceAll(msgC, "\r", "\n")},
			answers:   []string{"AA id1", "AA id2", "AA id3"},
		},
		{name: "empty", srv: &mllp.Server{Batches: mllp.PolicyBatch}, in: frame("BHS|^~\\&|||||||||b1\rBTS|0\r"), answers: []string{"AA b1"}},
		{
			name: "a message without ID", srv: &mllp.Server{Batches: mllp.PolicyPerMessage},
			in:        frame("BHS|^~\\&\r" + strings.Replace(msgA, "id1", "", 1) + msgB + "BTS|2\r"),
			delivered: all[1:2], answers: []string{"AR ", "AA id2"}, told: []string{"rejected no_control_id"},
		},
		{
			name: "an acknowledgement", srv: &mllp.Server{Batches: mllp.PolicyPerMessage},
			in:        frame("BHS|^~\\&\rMSH|^~\\&|A|B|C|D|2026||ACK|id9|P|2.5\rMSA|AA|id0\r" + msgB + "BTS|2\r"),
			delivered: []string{"MSH|^~\\&|A|B|C|D|2026||ACK|id9|P|2.5\rMSA|AA|id0\r", msgB}, answers: []string{"AA id2"},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.run(t, len(x.in)+1)
			t.Run("byte by byte", func(t *testing.T) { x.run(t, 1) })
		})
	}
}

func TestABatchThatIsNotWhatItSaysIsAnErrorBeforeAnyMessageIsHandled(t *testing.T) {
	for name, batch := range map[string]string{
		"BTS-1 too large":              strings.Replace(batchOf3, "BTS|3", "BTS|4", 1),
		"BTS-1 too small":              strings.Replace(batchOf3, "BTS|3", "BTS|2", 1),
		"BTS-1 no number":              strings.Replace(batchOf3, "BTS|3", "BTS|x", 1),
		"FTS-1 too large":              strings.Replace(batchOf3, "FTS|1", "FTS|2", 1),
		"text outside of messages":     strings.Replace(batchOf3, "BTS|3", "BTS|3\rPID|1", 1),
		"a message after the trailer":  batchOf3 + msgA,
		"a message after BTS":          strings.Replace(batchOf3, "FTS|1", msgA+"FTS|1", 1),
		"a batch without end":          strings.Replace(batchOf3, msgB, "BHS|^~\\&\r"+msgB, 1),
		"two file headers":             "FHS|^~\\&|||||||||f1\r" + batchOf3,
		"a trailer in front":           strings.Replace(batchOf3, "BHS", "BTS|0\rBHS", 1),
		"messages of a second trailer": strings.Replace(batchOf3, "FTS|1\r", "BTS|3\rFTS|1\r", 1),
	} {
		for _, policy := range []mllp.Policy{mllp.PolicyPerMessage, mllp.PolicyBatch, mllp.PolicyLast} {
			t.Run(name+", "+string(policy), func(t *testing.T) {
				x := exchange{srv: &mllp.Server{Batches: policy}, in: frame(batch), answers: []string{"AE f1"}, told: []string{"rejected batch"}}
				x.run(t, len(x.in)+1)
			})
		}
	}
}

func TestABatchOfAnswersHasTheShapeOfTheBatch(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Batches: mllp.PolicyBatch, Handler: refusing("id2")})
		c := s.call()
		for _, tc := range []struct {
			batch string
			want  []string // its parts
		}{
			{batchOf3, []string{"FHS|^~\\&|EHR|CLINIC|LAB|HOSP|", "BHS|^~\\&|EHR|CLINIC|LAB|HOSP|", "AA id1", "AE id2", "AA id3", "BTS|3\r", "FTS|1\r"}},
			{"BHS|^~\\&|LAB|HOSP|EHR|CLINIC\r" + msgA, []string{"BHS|^~\\&|EHR|CLINIC|LAB|HOSP|", "AA id1", "BTS|1\r"}},
			{"FHS#~!%@\r" + strings.NewReplacer("|", "#", "^~\\&", "~!%@").Replace(msgA), []string{"FHS#~!%@#", "BHS#~!%@\r", "AA id1", "BTS#1\r", "FTS#1\r"}},
		} {
			c.say(frame(tc.batch))
			text, err := c.frames.Next()
			require.NoError(t, err)
			var got []string
			for part := range mllp.SplitBatch(text) {
				if part.Segment != "MSH" {
					got = append(got, string(part.Text))
					if part.Segment == "FHS" && tc.batch == batchOf3 {
						assert.Contains(t, string(part.Text), "|f1\r")
					}
					continue
				}
				a, err := mllp.ParseAck(part.Text)
				require.NoError(t, err)
				got = append(got, string(a.Code)+" "+a.ControlID)
			}
			require.Len(t, got, len(tc.want), "%q", text)
			for i, want := range tc.want {
				assert.True(t, strings.HasPrefix(got[i], want), "%q is not %q", got[i], want)
			}
		}
		// Another of our Servers takes it for a batch whose counts are right.
		c.say(frame(msgC))
		assert.Equal(t, "AA id3", c.hear())
	})
}

func TestMessagesOfABatchAskForTheirOwnAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serve(t, &mllp.Server{Enhanced: true, Batches: mllp.PolicyPerMessage}).call()
		c.say(frame("BHS|^~\\&\r" + asking("id1", "AL", "AL") + asking("id2", "NE", "NE") + msgC + "BTS|3\r"))
		assert.Equal(t, []string{"CA id1", "AA id1", "AA id3"}, c.acks(3))
	})
}

func TestMoreAnswersThanABatchMayHaveAreRefusedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Batches: mllp.PolicyBatch})
		c := s.call()
		c.say(frame("BHS|^~\\&|||||||||b1\r" + strings.Repeat("MSH|^~\\&\r", 10_001)))
		assert.Equal(t, "AE b1", c.hear())
		assert.Empty(t, s.delivered())
	})
}

func TestShortSegmentsThatEndWithLFTakeNoLongerThanOthers(t *testing.T) {
	text := []byte("MSH|^~\\&|||||||ACK|1|P|2.5\n" + strings.Repeat("X\n", 2<<20))
	began := time.Now()
	_, err := mllp.ParseAck(text)
	require.Error(t, err)
	n := 0
	for range mllp.SplitBatch(text) {
		n++
	}
	assert.Equal(t, 1, n)
	// A search to the end from each segment on would take hours.
	assert.Less(t, time.Since(began), 20*time.Second)
}

// FuzzSplitBatch: the parts of whatever text, put together again, are that text;
// each message begins with MSH, and none of them holds another one.
func FuzzSplitBatch(f *testing.F) {
	for _, s := range []string{batchOf3, msgA, "", "\r\r", "MSH|", "FHS|^~\\&\n\n\nMSH|\r\nBTS\rFTS", "\xef\xbb\xbf" + batchOf3, "BTS\rMSH\rMSH|x\rMSH|y"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var joined []byte
		for part := range mllp.SplitBatch(text) {
			require.NotEmpty(t, part.Text)
			joined = append(joined, part.Text...)
			if part.Segment != "" {
				require.True(t, bytes.HasPrefix(bytes.TrimPrefix(part.Text, []byte("\xef\xbb\xbf")), []byte(part.Segment)))
			}
			if part.Segment == "MSH" {
				n := 0
				for range mllp.SplitBatch(part.Text) {
					n++
				}
				require.Equal(t, 1, n)
			}
		}
		require.Equal(t, string(text), string(joined))
	})
}
