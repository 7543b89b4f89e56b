package mllp_test

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// oddReplies are what receivers send in answer to message M1, and what Send must
// make of it. With no code, the outcome is Unknown.
var oddReplies = map[string]struct {
	reply string
	code  mllp.AckCode
	waits bool // Send finds out only when its time is over
}{
	"as it should be":               {answer(mllp.AA, "M1"), mllp.AA, false},
	"refusal":                       {answer(mllp.AE, "M1"), mllp.AE, false},
	"commit":                        {answer(mllp.CA, "M1"), mllp.CA, false},
	"segments end with LF":          {strings.ReplaceAll(strings.TrimSuffix(answer(mllp.AA, "M1"), "\r"), "\r", "\n") + "\r", mllp.AA, false},
	"segments end with CRLF":        {strings.ReplaceAll(strings.TrimSuffix(answer(mllp.AA, "M1"), "\x1C\r"), "\r", "\r\n") + "\x1C\r", mllp.AA, false},
	"no CR after the last segment":  {strings.Replace(answer(mllp.AA, "M1"), "\r\x1C", "\x1C", 1), mllp.AA, false},
	"LF after the frame":            {answer(mllp.AA, "M1") + "\n", mllp.AA, false},
	"blanks before the frame":       {"\r\n\x00 " + answer(mllp.AA, "M1"), mllp.AA, false},
	"log text before the frame":     {"connected " + canary + answer(mllp.AA, "M1"), mllp.AA, false},
	"byte order mark":               {"\x0B\xEF\xBB\xBF" + answer(mllp.AA, "M1")[1:], mllp.AA, false},
	"other separators":              {"\x0BMSH#~!%@#A#B\rMSA#AA#M1\r\x1C\r", mllp.AA, false},
	"MSA without more":              {"\x0BMSH|^~\\&|A\rMSA|AA|M1\x1C\r", mllp.AA, false},
	"MSA far down":                  {"\x0BMSH|^~\\&|A\rSFT|1\rERR|||207\rMSA|AR|M1\rNTE|1\r\x1C\r", mllp.AR, false},
	"no MSA":                        {"\x0BMSH|^~\\&|A\rPID|" + canary + "\r\x1C\r", "", false},
	"MSA alone":                     {"\x0BMSA|AA|M1\r\x1C\r", "", false},
	"two MSA":                       {"\x0BMSH|^~\\&|A\rMSA|AA|M1\rMSA|AE|M1\r\x1C\r", "", false},
	"unknown code":                  {"\x0BMSH|^~\\&|A\rMSA|" + canary + "|M1\r\x1C\r", "", false},
	"no code":                       {"\x0BMSH|^~\\&|A\rMSA||M1\r\x1C\r", "", false},
	"text":                          {"\x0BOK " + canary + "\x1C\r", "", false},
	"XML":                           {"\x0B<?xml version=\"1.0\"?><ACK/>\x1C\r", "", false},
	"empty frame":                   {"\x0B\x1C\r", "", false},
	"commit byte of MLLP release 2": {"\x0B\x06\x1C\r", "", false},
	"refusal byte of release 2":     {"\x0B\x15\x1C\r", "", false},
	"another protocol":              {"HTTP/1.1 400 Bad Request\r\n\r\n" + canary, "", false},
	"too much without a frame":      {strings.Repeat(canary, 1000), "", false},
	"cut off by another reply":      {"\x0BMSH|^~\\&|A\rMSA|AA|M1" + answer(mllp.AA, "M2"), "", false},
	"message of another":            {answer(mllp.AA, "M0"), "", true},
	"empty MSA-2":                   {answer(mllp.AA, ""), "", true},
	"more than our MSA-2":           {answer(mllp.AA, "M1^X"), "", true},
	"less than our MSA-2":           {answer(mllp.AA, "M"), "", true},
	"MSA-2 in other letters":        {answer(mllp.AA, "m1"), "", true},
	"no end of the frame":           {strings.TrimSuffix(answer(mllp.AA, "M1"), "\x1C\r"), "", true},
	"text without a frame":          {"OK " + canary, "", true},
	"only blanks":                   {"\r\n\r\n", "", true},
}

func TestOddRepliesAreAcceptedOrGiveUnknownHoweverTheyArrive(t *testing.T) {
	arrivals := map[string]func(p *peer, reply string){
		"whole":      func(p *peer, reply string) { p.say(reply) },
		"in three":   func(p *peer, reply string) { n := len(reply) / 3; p.say(reply[:n], reply[n:2*n], reply[2*n:]) },
		"bytewise":   func(p *peer, reply string) { p.say(strings.Split(reply, "")...) },
		"then ended": func(p *peer, reply string) { io.WriteString(p, reply); p.CloseWrite() },
	}
	for name, tt := range oddReplies {
		for arrival, write := range arrivals {
			t.Run(name+", "+arrival, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, p := dial(t, &mllp.Dialer{Timeout: time.Minute})
					ch := send(t.Context(), c, adt("M1"))
					p.receive()
					write(p, tt.reply)
					s := <-ch
					switch {
					case tt.code == "":
						assert.Nil(t, s.reply)
						failed(t, s.err, mllp.Unknown)
						require.Error(t, c.Err(), "what comes later must not be taken for a reply")
						if tt.waits && arrival != "then ended" {
							assert.Equal(t, time.Minute, s.took)
							assert.ErrorIs(t, s.err, os.ErrDeadlineExceeded)
						} else {
							assert.Zero(t, s.took.Round(10*time.Second))
						}
					case tt.code.Accepted():
						require.NoError(t, s.err)
						assert.Equal(t, tt.code, s.reply.Ack.Code)
					default:
						assert.Equal(t, tt.code, failed(t, s.err, mllp.Nacked).AckCode)
					}
				})
			})
		}
	}
}

func TestAReplyWithoutAFrameIsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{})
		ch := send(t.Context(), c, adt("M1"))
		p.say(strings.Trim(answer(mllp.AA, "M1"), "\x0B\x1C\r"))
		s := <-ch
		failed(t, s.err, mllp.Unknown)
		assert.ErrorContains(t, s.err, "outside of a frame")
		assert.Zero(t, s.took.Round(time.Second))
	})
}

func TestTwoAcknowledgementsInOneReadReachBothMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Window: 2})
		first, second := send(t.Context(), c, adt("M1")), send(t.Context(), c, adt("M2"))
		p.say(answer(mllp.AA, "M1") + answer(mllp.AR, "M2"))
		require.NoError(t, (<-first).err)
		failed(t, (<-second).err, mllp.Nacked)
		require.NoError(t, c.Err())
	})
}

func TestASecondAcknowledgementOfOneMessageReachesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{})
		ch := send(t.Context(), c, adt("M1"))
		p.say(answer(mllp.AA, "M1") + answer(mllp.AA, "M1"))
		require.NoError(t, (<-ch).err)
		synctest.Wait()
		require.ErrorIs(t, c.Err(), mllp.ErrUnsolicited)
		_, err := c.Send(t.Context(), adt("M2"))
		assert.True(t, failed(t, err, mllp.NotSent).Retryable())
	})
}

func TestAcknowledgementsOfOtherMessagesArePassedOverAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{})
		ch := send(t.Context(), c, adt("M1"))
		p.say(answer(mllp.AA, "M0"), answer(mllp.AE, "X")+answer(mllp.AA, ""), answer(mllp.AA, "M1"))
		s := <-ch
		require.NoError(t, s.err)
		assert.Equal(t, 3, s.reply.Strays)

		ch = send(t.Context(), c, adt("M2"))
		p.say(answer(mllp.AA, "M2"))
		s = <-ch
		require.NoError(t, s.err)
		assert.Zero(t, s.reply.Strays)

		ch = send(t.Context(), c, adt("M3"))
		p.say(answer(mllp.AA, "M2"))
		assert.ErrorContains(t, (<-ch).err, "within 30s, but 1 of other messages")
	})
}

func TestMatchStrictEndsTheConnAtAnotherMessagesAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Match: mllp.MatchStrict})
		ch := send(t.Context(), c, adt("M1"))
		p.say(answer(mllp.AA, "M0"))
		s := <-ch
		failed(t, s.err, mllp.Unknown)
		require.ErrorIs(t, s.err, mllp.ErrMismatch)
		assert.ErrorIs(t, c.Err(), mllp.ErrMismatch)
	})
}

func TestMatchAnyTakesTheNextAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := dial(t, &mllp.Dialer{Match: mllp.MatchAny})
		for msg, reply := range map[string]string{
			"any text":        "\x0BMSH|^~\\&|\rMSA|AA\r\x1C\r",
			string(adt("M1")): answer(mllp.AA, "another"),
			string(adt("")):   answer(mllp.AA, ""),
		} {
			ch := send(t.Context(), c, []byte(msg))
			p.say(reply)
			require.NoError(t, (<-ch).err)
		}
		ch := send(t.Context(), c, []byte("any text"))
		p.say("\x0Bno acknowledgement\x1C\r")
		failed(t, (<-ch).err, mllp.Unknown)
	})
}

func TestAReplyOverTheLimitIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reply := answer(mllp.AA, "M1")
		for limit, ok := range map[int64]bool{int64(len(reply)) - 3: true, int64(len(reply)) - 4: false} {
			c, p := dial(t, &mllp.Dialer{MaxMessageBytes: limit})
			ch := send(t.Context(), c, adt("M1"))
			p.say(reply)
			s := <-ch
			if ok {
				require.NoError(t, s.err)
				continue
			}
			failed(t, s.err, mllp.Unknown)
			var fe *mllp.FrameError
			require.ErrorAs(t, s.err, &fe)
			assert.Equal(t, mllp.ReasonTooLarge, fe.Reason)
		}
	})
}

// FuzzReply sends any bytes in answer to message M1, whole and in pieces. The
// result must be the same, and must not be success unless the bytes hold a frame
// whose acknowledgement says so.
func FuzzReply(f *testing.F) {
	for _, tt := range oddReplies {
		f.Add([]byte(tt.reply), uint8(7))
	}
	f.Fuzz(func(t *testing.T, reply []byte, piece uint8) {
		var results [2]*mllp.Reply
		var errs [2]error
		for i := range results {
			synctest.Test(t, func(t *testing.T) {
				c, p := dial(t, &mllp.Dialer{})
				ch := send(t.Context(), c, adt("M1"))
				p.receive()
				if i == 0 {
					p.say(string(reply))
				} else {
					for part := range slices.Chunk(reply, max(int(piece), len(reply)/100+1)) {
						p.say(string(part))
					}
				}
				p.CloseWrite()
				s := <-ch
				results[i], errs[i] = s.reply, s.err
			})
		}
		require.Equal(t, errs[0] == nil, errs[1] == nil, "%v / %v", errs[0], errs[1])
		for i, err := range errs {
			if e, ok := errors.AsType[*mllp.SendError](err); ok && e.Outcome != mllp.Nacked {
				require.Equal(t, mllp.Unknown, e.Outcome)
				require.Nil(t, results[i])
				continue
			}
			ack, ackErr := mllp.ParseAck(results[i].Raw)
			require.NoError(t, ackErr)
			require.Equal(t, results[i].Ack, ack)
			require.Equal(t, err == nil, ack.Code.Accepted())
			require.Equal(t, "M1", ack.ControlID)
			require.Contains(t, string(reply), "\x0B"+string(results[i].Raw))
		}
	})
}
