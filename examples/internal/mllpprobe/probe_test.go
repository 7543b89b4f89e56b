package mllpprobe_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/internal/mllpprobe"
	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// ours runs an mllp.Server on ln until the test ends. Without a handler it
// accepts everything.
func ours(t *testing.T, ln net.Listener, srv *mllp.Server) {
	t.Helper()
	if srv.Handler == nil {
		srv.Handler = mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
}

// modes are the TLS settings of a server and its clients; nil: none.
func modes(t *testing.T) map[string]struct{ server, client *tls.Config } {
	t.Helper()
	pki := testpki.NewCA(t, "Test CA")
	server := &tls.Config{Certificates: []tls.Certificate{pki.Server("receiver").TLS()}, MinVersion: tls.VersionTLS12}
	client := &tls.Config{RootCAs: pki.Pool(), ServerName: "receiver", MinVersion: tls.VersionTLS12}
	mutualServer, mutualClient := server.Clone(), client.Clone()
	mutualServer.ClientCAs, mutualServer.ClientAuth = pki.Pool(), tls.RequireAndVerifyClientCert
	mutualClient.Certificates = []tls.Certificate{pki.Client("probe").TLS()}
	oldServer := mutualServer.Clone()
	oldServer.MaxVersion = tls.VersionTLS12
	return map[string]struct{ server, client *tls.Config }{
		"plain": {}, "TLS": {server, client}, "mutual TLS": {mutualServer, mutualClient}, "mutual TLS 1.2": {oldServer, mutualClient},
	}
}

// requireNoBadLine requires that nothing is bad, and that nothing differs but what
// package mllp says that it does not heed.
func requireNoBadLine(t *testing.T, all []*mllpprobe.Result) {
	t.Helper()
	assert.Empty(t, graded(all, mllpprobe.Bad))
	for _, line := range graded(all, mllpprobe.Differs) {
		assert.True(t, strings.HasPrefix(line, "mode-"), line)
	}
}

func TestOurServerHasNoBadLine(t *testing.T) {
	for name, tt := range modes(t) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := memnet.Listen()
				ours(t, ln, &mllp.Server{TLSConfig: tt.server})
				plain := func(context.Context) (net.Conn, error) { return ln.Dial() }
				probe := &mllpprobe.Probe{Dial: plain, Slow: true}
				if tt.client != nil {
					probe.Dial, probe.DialPlain = overTLS(plain, tt.client), plain
				}
				requireNoBadLine(t, results(t, probe))
			})
		})
	}
}

func TestOurServerHasNoBadLineOnRealSockets(t *testing.T) {
	both := modes(t)
	for _, name := range []string{"plain", "mutual TLS"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			tt := both[name]
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			ours(t, ln, &mllp.Server{TLSConfig: tt.server})
			plain := func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
			}
			probe := &mllpprobe.Probe{Dial: plain, Timeout: 10 * time.Second, Large: tt.server == nil}
			if tt.client != nil {
				probe.Dial, probe.DialPlain = overTLS(plain, tt.client), plain
			}
			requireNoBadLine(t, results(t, probe))
		})
	}
}

func TestANaiveReceiverFailsWhereItMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := results(t, &mllpprobe.Probe{Dial: listen(t, naive.serve)})
		assert.Equal(t, []string{
			"space-between: AA -, AA -", // it takes what is before VT for a part of the message
			"text-between: AA -, AA -",
			"no-cr-then-next: AA 1",
			"fs-cr-inside: AA 1, AA -, AA 2",
			"truncated: AA 1",
			"empty-frame: AA -, AA 1",
			"blank-frame: AA -, AA 1",
			"commit-blocks: AA -, AA -, AA 1",
			"no-msh: AA -, AA 1",
			"json: AA -, AA 1",
			"xml: AA -, AA 2",
			"separators: AA -, with others",
			"batch: AA -",
			"batch-count: AA -",
			"ack-as-message: AA 1-2",
		}, graded(all, mllpprobe.Bad))
		assert.Equal(t, []string{
			"endless-junk: silence",
			"no-control-id: AA -",
			"two-msh: AA 1",
			"ack-header: AA 1, other MSH-3, other MSH-4, other MSH-6",
			"mode-ne-ne: AA 1-2", "mode-al-ne: AA 1-2", "mode-su-ne: AA 1-2", "mode-er-ne: AA 1-2", "mode-al-al: AA 1-2",
			"http: silence",
			"tls-hello: silence",
		}, graded(all, mllpprobe.Differs))
		for _, r := range all {
			if r.Grade == mllpprobe.Bad {
				assert.NotEmpty(t, r.Remark, r.Name)
			}
		}
	})
}

func TestWhatOtherReceiversDoWrongIsFound(t *testing.T) {
	plain := regexp.MustCompile(`\d+`)
	for name, tt := range map[string]struct {
		handle func(net.Conn)
		only   []string
		bad    []string
	}{
		"answers in another order": {
			peer{answers: func(texts []string) (answers []string) {
				for _, text := range slices.Backward(texts) {
					answers = append(answers, ack("AA", controlID(text)))
				}
				return answers
			}}.serve,
			[]string{"plain", "two-in-one"},
			[]string{"two-in-one: AA 2, AA 1"},
		},
		"only the first of several messages is answered": {
			peer{answers: func(texts []string) (answers []string) {
				for _, text := range texts[:min(1, len(texts))] {
					answers = append(answers, ack("AA", controlID(text)))
				}
				return answers
			}}.serve,
			[]string{"plain", "two-in-one"},
			[]string{"two-in-one: AA 1"},
		},
		"every answer has the same control id": {
			each(func(text string) string { return ackWith("1", "AA", controlID(text)) }).serve,
			[]string{"plain", "ack-own-id"},
			[]string{"ack-own-id: AA 1-2, with the same"},
		},
		"MSA-2 is always the same": {
			each(func(string) string { return ack("AA", "1") }).serve,
			[]string{"plain", "duplicate", "still-there"},
			[]string{"plain: AA ?", "duplicate: AA ?, AA ?", "still-there: AA ?"},
		},
		"MSA-2 is cut at the first separator": {
			each(func(text string) string { id, _, _ := strings.Cut(controlID(text), "^"); return ack("AA", id) }).serve,
			[]string{"plain", "id-with-components", "id-of-199"},
			[]string{"id-with-components: AA ?"},
		},
		"MSA-2 is trimmed": {
			each(func(text string) string { return ack("AA", strings.TrimSpace(controlID(text))) }).serve,
			[]string{"plain", "id-with-blanks"},
			[]string{"id-with-blanks: AA ?"},
		},
		"no acknowledgement": {
			peer{answers: func([]string) []string { return nil }}.serve,
			[]string{"plain", "truncated", "end-in-frame", "still-there"},
			[]string{"plain: silence", "truncated: silence", "still-there: silence"},
		},
		"it closes at once": {
			func(net.Conn) {},
			[]string{"plain", "end-in-frame", "still-there"},
			[]string{"plain: END", "still-there: END"},
		},
		"it acknowledges what ends in the middle": {
			func(conn net.Conn) {
				text, _ := io.ReadAll(conn)
				io.WriteString(conn, ack("AA", controlID(string(text))))
			},
			[]string{"end-in-frame", "no-cr-then-end", "half-close"},
			[]string{"end-in-frame: AA 1, END"},
		},
		"it answers as soon as a read brings something": {
			func(conn net.Conn) {
				buf := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					io.WriteString(conn, ack("AA", controlID(string(buf[:n]))))
				}
			},
			[]string{"plain", "pause", "end-in-frame"},
			[]string{"pause: AA 1, AA -", "end-in-frame: AA 1, END"},
		},
		"answers without a frame": {
			each(func(text string) string { return strings.Trim(ack("AA", controlID(text)), "\v\x1c\r") }).serve,
			[]string{"plain"},
			[]string{"plain: N bytes outside a frame"},
		},
		"answers whose frame does not end": {
			each(func(text string) string { return strings.Trim(ack("AA", controlID(text)), "\x1c\r") }).serve,
			[]string{"plain"},
			[]string{"plain: part of a frame"},
		},
		"it speaks release 2": {
			each(func(string) string { return "\v\x06\x1c\r" }).serve,
			[]string{"plain"},
			[]string{"plain: commit 06"},
		},
		"a reply that acknowledges nothing": {
			each(func(string) string { return "\vMSH|^~\\&|x\r\x1c\r" }).serve,
			[]string{"plain"},
			[]string{"plain: a frame without MSA"},
		},
		"an answer without end": {
			each(func(string) string { return "\v" + strings.Repeat("x", 2<<20) }).serve,
			[]string{"plain"},
			[]string{"plain: an answer without end"},
		},
		"HL7 2.1 is answered with CA": {
			each(func(text string) string { return ack("CA", controlID(text)) }).serve,
			[]string{"plain", "hl7-2.1"},
			[]string{"hl7-2.1: CA 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := results(t, &mllpprobe.Probe{Dial: listen(t, tt.handle)}, tt.only...)
				bad := graded(all, mllpprobe.Bad)
				for i, line := range bad {
					bad[i] = strings.NewReplacer("closed", "END", "reset", "END").Replace(line)
					if strings.Contains(line, "bytes outside") {
						bad[i] = plain.ReplaceAllString(line, "N")
					}
				}
				assert.Equal(t, tt.bad, bad)
			})
		})
	}
}

func TestASenderThatDoesNotReadMustNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen()
		served := make(chan struct{})
		go func() { // one connection after the other
			defer close(served)
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				naive.serve(conn)
				conn.Close()
			}
		}()
		t.Cleanup(func() { ln.Close(); <-served })
		all := results(t, &mllpprobe.Probe{Dial: func(context.Context) (net.Conn, error) { return ln.Dial() }}, "unread-answers")
		assert.Equal(t, []string{"unread-answers: others wait, AA 1-2000"}, graded(all, mllpprobe.Bad))
	})
}

func TestAReceiverThatRefusesEveryMessageIsJudgedAllTheSame(t *testing.T) {
	for _, code := range []mllp.AckCode{mllp.AR, mllp.AE} {
		synctest.Test(t, func(t *testing.T) {
			ln := memnet.Listen()
			ours(t, ln, &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
				return nil, &mllp.Nak{Code: code, Text: "unknown sender"}
			})})
			all := results(t, &mllpprobe.Probe{Dial: func(context.Context) (net.Conn, error) { return ln.Dial() }})
			assert.Empty(t, graded(all, mllpprobe.Bad))
			assert.Contains(t, graded(all, mllpprobe.Differs), "plain: "+string(code)+" 1", "but it is said")
			assert.Contains(t, graded(all, mllpprobe.OK), "thousand-in-one: "+string(code)+" 1-1000")
		})
	}
}

func TestPlaintextThatATLSPortServesIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := results(t, &mllpprobe.Probe{Dial: listen(t, naive.serve), DialPlain: listen(t, naive.serve)}, "plaintext")
		assert.Equal(t, []string{"plaintext: AA 1"}, graded(all, mllpprobe.Bad))
	})
}

func TestNothingThatThePeerSaysIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		canary := func(text string) string {
			return "CANARY outside\vMSH|^~\\&|CANARY|CANARY|CANARY|CANARY|CANARY||CANARY|CANARY|CANARY|CANARY\rMSA|CANARY|CANARY|CANARY\rMSA|AA|CANARY " +
				controlID(text) + "|CANARY\r\x1c\r"
		}
		for _, r := range results(t, &mllpprobe.Probe{Dial: listen(t, each(canary).serve)}) {
			assert.NotContains(t, fmt.Sprint(*r), "CANARY", r.Name)
		}
	})
}

func TestEveryMessageSaysThatItIsSynthetic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var texts []string
		record := peer{answers: func(completed []string) (answers []string) {
			mu.Lock()
			defer mu.Unlock()
			for _, text := range completed {
				texts = append(texts, text)
				answers = append(answers, ack("AA", controlID(text)))
			}
			return answers
		}}
		results(t, &mllpprobe.Probe{Dial: listen(t, record.serve), ProcessingID: "D"})
		require.Greater(t, len(texts), 3000)
		header := regexp.MustCompile(`(?:^|\v|\xbf|\r)MSH[^\r]*`)
		ids := map[string]int{}
		for _, text := range texts {
			for _, line := range header.FindAllString(strings.ReplaceAll(text, "\n", "\r"), -1) {
				if strings.HasPrefix(line[strings.Index(line, "MSH"):], "MSH#") {
					continue // the other separators
				}
				fields := strings.Split(line, "|")
				require.Greater(t, len(fields), 11, line)
				assert.Equal(t, "CAREWIRE-PROBE", fields[2])
				assert.Equal(t, "D", fields[10])
				ids[fields[9]]++
			}
			assert.NotContains(t, text, "PID|1||||", "PID-5 stays empty")
		}
		for id, n := range ids {
			if id != "" {
				assert.LessOrEqual(t, n, 2, "control ids are used once, but for the duplicate")
			}
		}
	})
}

func TestScenariosFitTheListener(t *testing.T) {
	dial := func(context.Context) (net.Conn, error) { return nil, net.ErrClosed }
	names := func(p *mllpprobe.Probe) (names []string) {
		scenarios, err := p.Scenarios()
		require.NoError(t, err)
		for _, s := range scenarios {
			assert.NotEmpty(t, s.Rule, s.Name)
			assert.NotEmpty(t, s.Sent, s.Name)
			assert.NotEmpty(t, s.Expected, s.Name)
			assert.Regexp(t, `^[a-z0-9.-]+$`, s.Name)
			assert.NotContains(t, names, s.Name)
			names = append(names, s.Name)
		}
		return names
	}
	plain, withTLS := names(&mllpprobe.Probe{Dial: dial}), names(&mllpprobe.Probe{Dial: dial, DialPlain: dial})
	assert.Contains(t, plain, "tls-hello")
	assert.NotContains(t, plain, "plaintext")
	assert.Contains(t, withTLS, "plaintext")
	assert.NotContains(t, withTLS, "tls-hello")
	more := names(&mllpprobe.Probe{Dial: dial, Large: true, Slow: true})
	for _, name := range []string{"16-mib", "endless-frame", "slow-bytes", "dripping-frame", "long-idle"} {
		assert.NotContains(t, plain, name)
		assert.Contains(t, more, name)
		_, err := (&mllpprobe.Probe{Dial: dial}).Scenarios(name)
		assert.ErrorContains(t, err, "runs only with --")
	}
	_, err := (&mllpprobe.Probe{Dial: dial}).Scenarios("plain", "CANARY")
	assert.ErrorContains(t, err, "no scenario")
}

func TestARunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		p := &mllpprobe.Probe{Dial: listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }), Timeout: time.Minute}
		scenarios, err := p.Scenarios()
		require.NoError(t, err)
		began := time.Now()
		err = p.Run(ctx, scenarios, func(r *mllpprobe.Result) { t.Errorf("%s was cut short", r.Name) })
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 100*time.Millisecond, time.Since(began))
	})
}

func TestWithoutAListenerThereAreNoResults(t *testing.T) {
	refused := fmt.Errorf("refused")
	p := &mllpprobe.Probe{Dial: func(context.Context) (net.Conn, error) { return nil, refused }}
	scenarios, err := p.Scenarios()
	require.NoError(t, err)
	assert.ErrorIs(t, p.Run(t.Context(), scenarios, func(*mllpprobe.Result) { t.Error("a result") }), refused)
}
