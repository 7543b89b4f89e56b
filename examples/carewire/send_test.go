package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// peer is a receiver that records what it gets and answers as a test says. It is
// made of frames alone, so that it can misbehave.
type peer struct {
	addr string

	mu       sync.Mutex
	messages []string // guarded by mu
	conns    int      // guarded by mu
}

// answering starts a peer. answer returns an acknowledgement code; "" hangs up,
// "silence" says nothing.
func answering(t *testing.T, answer func(h *mllp.Header) string) *peer {
	t.Helper()
	p := new(peer)
	p.addr = serve(t, func(conn net.Conn) {
		p.mu.Lock()
		p.conns++
		p.mu.Unlock()
		for r := mllp.NewReader(conn, 0); ; {
			text, err := r.Next()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.messages = append(p.messages, string(text))
			p.mu.Unlock()
			var h mllp.Header
			if h.Parse(text) != nil {
				return
			}
			code := answer(&h)
			switch code {
			case "":
				return
			case "silence":
				continue
			}
			reply := mllp.AppendAck(nil, &h, mllp.AckCode(code), "CANARY of the peer", []byte("1"), time.Now())
			if frame, err := mllp.AppendFrame(nil, reply); err != nil || write(conn, frame) != nil {
				return
			}
		}
	})
	return p
}

func write(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

func (p *peer) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.messages)
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

func always(code string) func(*mllp.Header) string { return func(*mllp.Header) string { return code } }

// byID answers some control ids in their own way and AA otherwise.
func byID(codes map[string]string) func(*mllp.Header) string {
	return func(h *mllp.Header) string {
		if code, ok := codes[string(h.ControlID)]; ok {
			return code
		}
		return "AA"
	}
}

var (
	millis = regexp.MustCompile(`\d+\.\d+ ms`)
	files  = regexp.MustCompile(`\t\S+ #`)
)

// stable takes out of the output what differs every time.
func stable(s string) string {
	return files.ReplaceAllString(millis.ReplaceAllString(s, "TIME"), "\tFILE #")
}

// send runs the command and requires that nothing of a message is printed.
func send(t *testing.T, p *peer, args ...string) result {
	t.Helper()
	r := carewire(t, append([]string{"mllp", "send", "--addr", p.addr}, args...)...)
	assert.NotContains(t, r.out+r.err, "CANARY")
	return r
}

func TestSendPrintsEveryAcknowledgement(t *testing.T) {
	p := answering(t, always("AA"))
	r := send(t, p, file(t, "two.hl7", adt("M1")+adt("M2")), file(t, "one.hl7", framed(adt("M3"))))
	assert.Equal(t, exitOK, r.status)
	assert.Empty(t, r.err)
	assert.Equal(t, "AA M1\tFILE #1\tTIME\nAA M2\tFILE #2\tTIME\nAA M3\tFILE #1\tTIME\n"+
		"3 messages: 3 acknowledged, 0 refused, 0 unknown, 0 not sent\n", stable(r.out))
	assert.Equal(t, []string{adt("M1"), adt("M2"), adt("M3")}, p.got())
	assert.Equal(t, 1, p.connections())

	r = send(t, p, file(t, "one.hl7", adt("M4")))
	assert.Equal(t, "AA M4\tFILE #1\tTIME\n", stable(r.out), "one message needs no summary")
}

func TestSendEndsSegmentsWithCRAndLeavesFramesAlone(t *testing.T) {
	p := answering(t, always("CA"))
	lf := strings.ReplaceAll(adt("M1"), "\r", "\n")
	odd := strings.TrimRight(adt("M2"), "\r") + "\nan LF of its own"
	r := send(t, p, file(t, "lf.hl7", lf), file(t, "framed.hl7", framed(odd)))
	assert.Equal(t, exitOK, r.status)
	assert.Equal(t, []string{adt("M1"), odd}, p.got())
	assert.Contains(t, r.err, "lf.hl7: ends of lines became CR")
	assert.NotContains(t, r.err, "framed.hl7")
}

func TestSendReadsStandardInput(t *testing.T) {
	p := answering(t, always("AA"))
	r := carewireReading(t, strings.NewReader(adt("M1")), "mllp", "send", "--addr", p.addr, "-")
	assert.Equal(t, exitOK, r.status)
	assert.Equal(t, "AA M1\t- #1\tTIME\n", millis.ReplaceAllString(r.out, "TIME"))
}

func TestTheExitStatusTellsTheWorstOutcome(t *testing.T) {
	three := file(t, "three.hl7", adt("M1")+adt("M2")+adt("M3"))
	for name, tt := range map[string]struct {
		answer func(*mllp.Header) string
		status int
		want   string
		got    int // messages that arrived
	}{
		"a refusal, and the rest goes on": {
			byID(map[string]string{"M2": "AE"}), exitNacked,
			"AA M1\tFILE #1\tTIME\nAE M2\tFILE #2\tTIME\nAA M3\tFILE #3\tTIME\n3 messages: 2 acknowledged, 1 refused, 0 unknown, 0 not sent\n", 3,
		},
		"all refused": {
			always("CR"), exitNacked,
			"CR M1\tFILE #1\tTIME\nCR M2\tFILE #2\tTIME\nCR M3\tFILE #3\tTIME\n3 messages: 0 acknowledged, 3 refused, 0 unknown, 0 not sent\n", 3,
		},
		"an unknown fate ends the run": {
			byID(map[string]string{"M1": "AE", "M2": ""}), exitUnknown,
			"AE M1\tFILE #1\tTIME\nUNKNOWN M2\tFILE #2\tmllp: sent, but not acknowledged: the peer closed the connection: EOF\n3 messages: 0 acknowledged, 1 refused, 1 unknown, 1 not sent\n", 2,
		},
		"silence": {
			byID(map[string]string{"M1": "silence"}), exitUnknown,
			"UNKNOWN M1\tFILE #1\tREASON\n3 messages: 0 acknowledged, 0 refused, 1 unknown, 2 not sent\n", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := answering(t, tt.answer)
			args := []string{three}
			if name == "silence" {
				args = append(args, "--timeout", "50ms")
			}
			r := send(t, p, args...)
			assert.Equal(t, tt.status, r.status)
			out := stable(r.out)
			if name == "silence" {
				out = regexp.MustCompile(`\tmllp: [^\n]*`).ReplaceAllString(out, "\tREASON")
			}
			assert.Equal(t, tt.want, out)
			assert.Len(t, p.got(), tt.got)
		})
	}
}

func TestWithoutAConnectionNothingIsSent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ln.Close()
	r := send(t, &peer{addr: ln.Addr().String()}, file(t, "two.hl7", adt("M1")+adt("M2")))
	assert.Equal(t, exitNotSent, r.status)
	assert.Contains(t, r.err, "not connected")
	assert.Equal(t, "2 messages: 0 acknowledged, 0 refused, 0 unknown, 2 not sent\n", r.out)
}

func TestAnInterruptLeavesAWaitingMessageUnknown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := answering(t, func(*mllp.Header) string { cancel(); return "silence" })
	r := carewireUntil(ctx, nil, "mllp", "send", "--addr", p.addr, file(t, "two.hl7", adt("M1")+adt("M2")))
	assert.Equal(t, exitUnknown, r.status)
	assert.Contains(t, r.out, "2 messages: 0 acknowledged, 0 refused, 1 unknown, 1 not sent")
}

func TestAFileThatCannotBeSentWholeIsNotSentAtAll(t *testing.T) {
	good := file(t, "good.hl7", adt("M1"))
	noID := strings.Replace(adt("M2"), "|M2|", "||", 1)
	for name, args := range map[string][]string{
		"a file that is not there":      {good, "no-such-file"},
		"a file that is no HL7":         {good, file(t, "x", "CANARY")},
		"a message without MSH-10":      {good, file(t, "x", noID)},
		"--same-id without MSH-10":      {file(t, "x", noID), "--repeat", "2", "--same-id"},
		"a message no frame can carry":  {good, file(t, "x", framed(strings.Replace(adt("M2"), "EVN", "\x0BVN", 1)))},
		"TLS files without TLS":         {good, "--ca", good},
		"a name without TLS":            {good, "--name", "lab"},
		"a CA file without certificate": {good, "--tls", "--ca", good},
		"a certificate without key":     {good, "--tls", "--cert", good},
		"no repetition":                 {good, "--repeat", "0"},
		"no connection":                 {good, "--conns", "0"},
		"too many messages":             {good, "--repeat", "10000001"},
		"no timeout":                    {good, "--timeout", "0s"},
		"no file":                       {},
	} {
		t.Run(name, func(t *testing.T) {
			p := answering(t, always("AA"))
			r := send(t, p, args...)
			assert.Equal(t, exitUsage, r.status)
			assert.Empty(t, r.out)
			assert.NotEmpty(t, r.err)
			assert.Empty(t, p.got())
			assert.Zero(t, p.connections())
		})
	}
}

func TestRepeatedMessagesGetControlIDsOfTheirOwn(t *testing.T) {
	p := answering(t, always("AA"))
	two := file(t, "two.hl7", adt("M1")+strings.Replace(adt("M2"), "|M2|", "||", 1))
	r := send(t, p, two, "--repeat", "3")
	require.Equal(t, exitOK, r.status, r.err)
	assert.Contains(t, r.err, "each of the 6 copies gets an MSH-10 of its own")
	ids := map[string]bool{}
	for i, text := range p.got() {
		var h mllp.Header
		require.NoError(t, h.Parse([]byte(text)))
		ids[string(h.ControlID)] = true
		assert.LessOrEqual(t, len(h.ControlID), 20)
		assert.Equal(t, adt(string(h.ControlID)), text, "nothing else changes")
		assert.Contains(t, r.out, fmt.Sprintf("AA %s\t%s #%d\t", h.ControlID, two, i%2+1))
	}
	assert.Len(t, ids, 6)
	assert.Regexp(t, regexp.MustCompile(`(?m)^\d+ messages/s over 1 connection for \d+\.\d+ s; latency p50 \S+ ms, p90 \S+ ms, p99 \S+ ms, max \S+ ms$`), r.out)
}

func TestRepeatedMessagesKeepTheirControlIDsOnRequest(t *testing.T) {
	p := answering(t, always("AA"))
	r := send(t, p, file(t, "one.hl7", adt("M1")), "--repeat", "3", "--same-id")
	require.Equal(t, exitOK, r.status, r.err)
	assert.Equal(t, []string{adt("M1"), adt("M1"), adt("M1")}, p.got())
	assert.Empty(t, r.err)
}

func TestManyConnectionsAndAWindow(t *testing.T) {
	p := answering(t, byID(nil))
	r := send(t, p, file(t, "one.hl7", adt("M1")), "--repeat", "200", "--conns", "4", "--window", "8", "--quiet")
	require.Equal(t, exitOK, r.status, r.err)
	assert.Len(t, p.got(), 200)
	assert.Equal(t, 4, p.connections())
	assert.True(t, strings.HasPrefix(r.out, "200 messages: 200 acknowledged, 0 refused, 0 unknown, 0 not sent\n"), r.out)
}

func TestMessagesOfAWindowLeaveInTheOrderOfTheFile(t *testing.T) {
	p := answering(t, byID(nil))
	var messages []string
	for i := range 300 {
		messages = append(messages, adt(fmt.Sprintf("M%d", i)))
	}
	r := send(t, p, file(t, "many.hl7", strings.Join(messages, "")), "--window", "16", "--quiet")
	require.Equal(t, exitOK, r.status, r.err)
	assert.Equal(t, messages, p.got())
	assert.Equal(t, 1, p.connections())
}

func TestQuietStillPrintsWhatWasNotAcknowledged(t *testing.T) {
	p := answering(t, byID(map[string]string{"M2": "AR"}))
	r := send(t, p, file(t, "two.hl7", adt("M1")+adt("M2")), "--quiet")
	assert.Equal(t, exitNacked, r.status)
	assert.Equal(t, "AR M2\tFILE #2\tTIME\n2 messages: 1 acknowledged, 1 refused, 0 unknown, 0 not sent\n", stable(r.out))
}

func TestSendPrintsJSONForScripts(t *testing.T) {
	p := answering(t, byID(map[string]string{"M2": "AE", "M3": ""}))
	path := file(t, "four.hl7", adt("M1")+adt("M2")+adt("M3")+adt("M4"))
	r := send(t, p, path, "--json")
	assert.Equal(t, exitUnknown, r.status)
	var lines []map[string]any
	for line := range strings.Lines(r.out) {
		var l map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		delete(l, "ms")
		lines = append(lines, l)
	}
	require.Len(t, lines, 4)
	assert.Equal(t, map[string]any{"outcome": "acknowledged", "code": "AA", "controlId": "M1", "file": path, "number": 1.0}, lines[0])
	assert.Equal(t, "refused", lines[1]["outcome"])
	assert.Equal(t, "AE", lines[1]["code"])
	assert.Equal(t, "unknown", lines[2]["outcome"])
	assert.NotEmpty(t, lines[2]["error"])
	sum, ok := lines[3]["summary"].(map[string]any)
	require.True(t, ok)
	for field, want := range map[string]float64{"messages": 4, "acknowledged": 1, "refused": 1, "unknown": 1, "notSent": 1} {
		assert.InDelta(t, want, sum[field], 0, field)
	}
	assert.Contains(t, sum, "latencyMs")
}

func TestSendNeverFallsBackFromTLS(t *testing.T) {
	ca := newPKI(t)
	other := testpki.NewCA(t, "Other CA").Write(t.TempDir(), "ca.crt")
	one := file(t, "one.hl7", adt("M1"))
	address := serveTLS(t, config(ca.Server()))
	plain := answering(t, always("AA"))
	for name, args := range map[string][]string{
		"an authority that is not ours": {"--addr", address, "--tls", "--ca", other},
		"the system's authorities":      {"--addr", address, "--tls"},
		"another name":                  {"--addr", address, "--tls", "--ca", ca.file, "--name", "lab.example.org"},
		"a receiver without TLS":        {"--addr", plain.addr, "--tls", "--ca", ca.file},
	} {
		t.Run(name, func(t *testing.T) {
			r := carewire(t, append(append([]string{"mllp", "send"}, args...), one)...)
			assert.Equal(t, exitNotSent, r.status)
			assert.Contains(t, r.err, "TLS")
			assert.Empty(t, plain.got())
		})
	}
}

func TestPercentilesOfFewAndMany(t *testing.T) {
	var one, hundred tally
	one.durations = []time.Duration{3 * time.Millisecond}
	assert.Equal(t, &latency{P50: 3, P90: 3, P99: 3, Max: 3}, one.summary().Latency)
	for i := range 100 {
		hundred.durations = append(hundred.durations, time.Duration(100-i)*time.Millisecond)
	}
	assert.Equal(t, &latency{P50: 50, P90: 90, P99: 99, Max: 100}, hundred.summary().Latency)
	assert.Nil(t, new(tally).summary().Latency)
}
