package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carewire/carewire/mllp"
)

// sent is what became of one message; its JSON form is what --json prints. It
// holds nothing of the message but its control id.
type sent struct {
	Outcome      mllp.Outcome
	Code         mllp.AckCode // empty where no acknowledgement came
	ControlID    string
	File         string
	Number       int
	Milliseconds float64
	Error        string
}

// MarshalJSON writes the outcome in words.
func (l sent) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Outcome      string       `json:"outcome"`
		Code         mllp.AckCode `json:"code,omitempty"`
		ControlID    string       `json:"controlId"`
		File         string       `json:"file"`
		Number       int          `json:"number"`
		Milliseconds float64      `json:"ms,omitempty"`
		Error        string       `json:"error,omitempty"`
	}{outcomeWord(l.Outcome), l.Code, l.ControlID, l.File, l.Number, l.Milliseconds, l.Error})
}

// outcomeWord is an outcome in the words of this tool's output.
func outcomeWord(o mllp.Outcome) string {
	switch o {
	case mllp.Acked:
		return "acknowledged"
	case mllp.Nacked:
		return "refused"
	case mllp.NotSent:
		return "not sent"
	default:
		return "unknown"
	}
}

func (l *sent) print(s *streams, asJSON bool) {
	if asJSON {
		_ = s.printJSON(l) // to a reader that has gone nothing can be said; the status still tells
		return
	}
	id := printable(l.ControlID)
	if id == "" {
		id = "(no MSH-10)"
	}
	where := fmt.Sprintf("%s #%d", l.File, l.Number)
	switch l.Outcome {
	case mllp.Acked, mllp.Nacked:
		fmt.Fprintf(s.out, "%s %s\t%s\t%.3f ms\n", l.Code, id, where, l.Milliseconds)
	case mllp.Unknown, mllp.NotSent, mllp.Sent: // Sent needs MatchNone, which is not used here
		fmt.Fprintf(s.out, "%s %s\t%s\t%s\n", strings.ToUpper(outcomeWord(l.Outcome)), id, where, l.Error)
	}
}

// tally counts the outcomes of a run.
type tally struct {
	acked, nacked, unknown, notSent int
	durations                       []time.Duration // of what was answered
	elapsed                         time.Duration
}

func (t *tally) add(l *sent, reply *mllp.Reply) {
	switch l.Outcome {
	case mllp.Acked:
		t.acked++
	case mllp.Nacked:
		t.nacked++
	case mllp.NotSent:
		t.notSent++
	case mllp.Unknown, mllp.Sent:
		t.unknown++
	}
	if reply != nil {
		t.durations = append(t.durations, reply.Duration)
	}
}

// status is the exit status: the outcome that needs most care decides.
func (t *tally) status() int {
	switch {
	case t.unknown > 0:
		return exitUnknown
	case t.notSent > 0:
		return exitNotSent
	case t.nacked > 0:
		return exitNacked
	default:
		return exitOK
	}
}

// summary is what --json prints at the end.
type summary struct {
	Messages     int      `json:"messages"`
	Acknowledged int      `json:"acknowledged"`
	Refused      int      `json:"refused"`
	Unknown      int      `json:"unknown"`
	NotSent      int      `json:"notSent"`
	Seconds      float64  `json:"seconds"`
	PerSecond    float64  `json:"perSecond"` // answered messages
	Latency      *latency `json:"latencyMs,omitempty"`
}

// latency is the distribution of the times from sending to acknowledgement.
type latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (t *tally) summary() summary {
	sum := summary{
		Messages:     t.acked + t.nacked + t.unknown + t.notSent,
		Acknowledged: t.acked, Refused: t.nacked, Unknown: t.unknown, NotSent: t.notSent,
		Seconds: t.elapsed.Seconds(),
	}
	if n := len(t.durations); n > 0 {
		slices.Sort(t.durations)
		// The smallest duration that p of 100 messages do not exceed.
		at := func(p int) float64 { return milliseconds(t.durations[(n*p+99)/100-1]) }
		sum.Latency = &latency{P50: at(50), P90: at(90), P99: at(99), Max: at(100)}
		sum.PerSecond = float64(n) / max(t.elapsed, 1).Seconds()
	}
	return sum
}

// print writes the summary: for scripts, for several messages, and whenever
// something went wrong.
func (t *tally) print(s *streams, c *sendCmd) error {
	sum := t.summary()
	if c.JSON {
		return s.printJSON(map[string]summary{"summary": sum})
	}
	if sum.Messages > 1 || t.status() != exitOK {
		fmt.Fprintf(s.out, "%s: %d acknowledged, %d refused, %d unknown, %d not sent\n",
			plural(sum.Messages, "message"), sum.Acknowledged, sum.Refused, sum.Unknown, sum.NotSent)
	}
	if c.Repeat > 1 && sum.Latency != nil {
		fmt.Fprintf(s.out, "%.0f messages/s over %s for %.3f s; latency p50 %.3f ms, p90 %.3f ms, p99 %.3f ms, max %.3f ms\n",
			sum.PerSecond, plural(c.Conns, "connection"), sum.Seconds, sum.Latency.P50, sum.Latency.P90, sum.Latency.P99, sum.Latency.Max)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// ids makes the control ids of a run's copies: unlike those of any other run, and
// within the 20 characters that MSH-10 has up to HL7 2.6.
type ids struct{ prefix string }

func newIDs() *ids { return &ids{prefix: "CW" + rand.Text()[:8]} }

// at returns the id of copy n.
func (i *ids) at(n int) string { return i.prefix + strconv.Itoa(n+1) }
