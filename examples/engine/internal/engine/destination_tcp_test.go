package engine_test

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// mute is a receiver that reads and never answers. It counts what it has read.
func mute(t *testing.T) (addr string, frames *atomic.Int64) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	frames = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := mllp.NewReader(conn, 0); ; frames.Add(1) {
					if _, err := r.Next(); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String(), frames
}

func TestIgnoredResponsesAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	silent, frames := mute(t)
	lab := newInbox(t, new(mllp.Server))
	for addr, arrived := range map[string]func() int{
		silent:   func() int { return int(frames.Load()) },
		lab.addr: func() int { return len(lab.messages()) },
	} {
		dest := toTCP("lab", addr)
		dest.TCP.IgnoreResponse = true
		e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
		send(t, dial(t, e.addr("adt"), nil), ids("M", 50)...)
		eventually(t, "all messages are written", func() bool { return e.stats("adt").Sent == 50 && arrived() == 50 })
		assert.Equal(t, 1, e.log.count("what is counted as sent here nobody has confirmed"), "it is said, once")
		e.stop()
	}
	// The positive control: whose answer is waited for is not done.
	dest := toTCP("lab", silent)
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), "M1")
	eventually(t, "the message is written", func() bool { return frames.Load() == 51 })
	assert.Zero(t, e.stats("adt").Sent)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // which waits for no answer
	_ = e.StopSources(ctx)
	e.StopDestinations(ctx)
}

func TestMessagesWithoutAResponseStayQueuedOrAreSetAside(t *testing.T) {
	t.Parallel()
	for _, queue := range []*bool{nil, new(true), new(false)} {
		addr, frames := mute(t)
		dest := toTCP("lab", addr)
		dest.TCP.ResponseTimeout = 20 * time.Millisecond
		dest.TCP.QueueOnResponseTimeout = queue
		st := openStore(t, t.TempDir())
		e := start(t, st, channel("adt", dest))
		send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
		if queue != nil && !*queue {
			eventually(t, "both are set aside", func() bool { return e.stats("adt").Error == 2 })
			assert.EqualValues(t, 2, frames.Load(), "each was written once")
			dead, err := st.DeadLetters(t.Context(), "adt", "lab", 0, 10)
			require.NoError(t, err)
			require.Len(t, dead, 2)
			assert.True(t, dead[0].MaybeSent, "it may have arrived")
			continue
		}
		eventually(t, "the first is written again and again", func() bool { return frames.Load() > 2 })
		e.stop()
		assert.EqualValues(t, 2, e.stats("adt").Queued)
		head, err := st.Pending(t.Context(), "adt", "lab", 0, 1)
		require.NoError(t, err)
		assert.True(t, head[0].MaybeSent)
		assert.Equal(t, "M1", head[0].Message.ControlID)
	}
}

func TestDestinationConnectsFromAnAddressAndPortOfItsOwn(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	lab := newInbox(t, new(mllp.Server))
	_, port, err := net.SplitHostPort(lab.addr) // held on another address, so that nobody else gets it
	require.NoError(t, err)
	number, err := net.LookupPort("tcp", port)
	require.NoError(t, err)
	dest := toTCP("lab", lab.addr)
	dest.TCP.LocalAddress, dest.TCP.LocalPort, dest.TCP.KeepConnectionOpen, dest.TCP.CheckRemoteHost = "127.0.0.2", number, new(false), new(false)
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), ids("M", 3)...)
	eventually(t, "all messages are delivered", func() bool { return e.stats("adt").Sent == 3 })
	for _, from := range lab.from {
		assert.Equal(t, "127.0.0.2:"+port, from, "also right after the last connection")
	}
}

func TestMessagesWhoseConnectionBreaksAreSetAsideToo(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	lab := newInbox(t, &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
		seen.Add(1)
		return nil, mllp.ErrNoReply
	})})
	dest := toTCP("lab", lab.addr)
	dest.TCP.QueueOnResponseTimeout = new(false)
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
	eventually(t, "both are set aside", func() bool { return e.stats("adt").Error == 2 })
	assert.EqualValues(t, 2, seen.Load(), "each was sent once")
}

// A stop of the engine is no answer that did not come: who does not queue after a
// time-out gets the message at the next start.
func TestMessagesInHandWhenTheEngineStopsStayQueued(t *testing.T) {
	t.Parallel()
	addr, frames := mute(t)
	dest := toTCP("lab", addr)
	dest.TCP.QueueOnResponseTimeout = new(false)
	st := openStore(t, t.TempDir())
	e := start(t, st, channel("adt", dest))
	send(t, dial(t, e.addr("adt"), nil), "M1")
	eventually(t, "the message is written", func() bool { return frames.Load() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = e.StopSources(ctx)
	e.StopDestinations(ctx)
	assert.Zero(t, e.stats("adt").Error)
	head, err := st.Pending(t.Context(), "adt", "lab", 0, 1)
	require.NoError(t, err)
	require.Len(t, head, 1)
	assert.True(t, head[0].MaybeSent)
}

// withAcks is a message with MSH-15 and MSH-16.
func withAcks(id, commit, application string) []byte {
	return []byte(strings.Replace(string(message(id)), "|T|2.5\r", "|T|2.5|||"+commit+"|"+application+"\r", 1))
}

func TestDestinationWaitsForTheAcknowledgementsThatAMessageAsksFor(t *testing.T) {
	t.Parallel()
	var judgement atomic.Value // of the receiver's application
	judgement.Store(mllp.AA)
	lab := newInbox(t, &mllp.Server{Enhanced: true, Application: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
		if code := judgement.Load().(mllp.AckCode); code != mllp.AA {
			return nil, &mllp.Nak{Code: code, Text: "no"}
		}
		return nil, nil
	})})
	dest := toTCP("lab", lab.addr)
	dest.TCP.EnhancedAcknowledgement, dest.Queue.OnPoison = true, "deadletter"
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	conn := dial(t, e.addr("adt"), nil)
	post := func(msg []byte) {
		_, err := conn.Send(t.Context(), msg)
		require.NoError(t, err)
	}
	post(withAcks("M1", "AL", "NE"))
	post(withAcks("M2", "AL", "AL"))
	eventually(t, "CA, and CA with AA, are deliveries", func() bool { return e.stats("adt").Sent == 2 })
	judgement.Store(mllp.AR)
	post(withAcks("M3", "AL", "AL"))
	eventually(t, "CA and then AR is none", func() bool { return e.stats("adt").Error == 1 })
}

func TestMissingWordOfTheApplicationIsNotAskedForByASecondSending(t *testing.T) {
	t.Parallel()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var frames atomic.Int64
	done := make(chan struct{})
	go func() { // takes charge of every message, and says no more
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			for r := mllp.NewReader(conn, 0); ; {
				msg, err := r.Next()
				if err != nil {
					break
				}
				frames.Add(1)
				var h mllp.Header
				if h.Parse(msg) == nil {
					frame, _ := mllp.AppendFrame(nil, mllp.AppendAck(nil, &h, mllp.CA, "", []byte("1"), time.Now()))
					_, _ = conn.Write(frame)
				}
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	dest := toTCP("lab", ln.Addr().String())
	dest.TCP.EnhancedAcknowledgement, dest.TCP.ApplicationTimeout = true, 30*time.Millisecond
	e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
	_, err = dial(t, e.addr("adt"), nil).Send(t.Context(), withAcks("M1", "AL", "AL"))
	require.NoError(t, err)
	eventually(t, "the message is set aside", func() bool { return e.stats("adt").Error == 1 })
	assert.EqualValues(t, 1, frames.Load())
	e.stop()
}

// inLatin1 is a message in ISO 8859-1, and what it is in UTF-8.
func inLatin1(id, msh18 string) (latin, utf8 string) {
	text := strings.Replace(string(message(id)), "|T|2.5\r", "|T|2.5||||||"+msh18+"|en\r", 1)
	text = strings.Replace(text, "Test^Patient", "M\u00fcller^J\u00fcrgen", 1)
	return strings.ReplaceAll(text, "\u00fc", "\xfc"), text
}

func TestDestinationConvertsCharacterSets(t *testing.T) {
	t.Parallel()
	latin, utf8 := inLatin1("M1", "8859/1")
	said := strings.Replace(utf8, "|8859/1|", "|UNICODE UTF-8|", 1)
	silent, silentUTF8 := inLatin1("M1", "")
	saidLater := strings.Replace(silentUTF8, "||||||", "||||||UNICODE UTF-8", 1)
	short := strings.Replace(string(message("M1")), "Test", "M\xfcller", 1)
	shortUTF8 := strings.NewReplacer("Test", "M\u00fcller", "|T|2.5\r", "|T|2.5||||||UNICODE UTF-8\r").Replace(string(message("M1")))
	for _, tt := range []struct {
		name         string
		source, dest mllp.Charset
		sent, want   string // nothing wanted: it cannot be converted
	}{
		{"as they came, by default", "", "", latin, latin},
		{"as they came, whatever the source says", "8859/1", "raw", silent, silent},
		{"from that of MSH-18", "", mllp.CharsetUTF8, latin, said},
		{"from that of the source, which counts more", mllp.CharsetLatin1, mllp.CharsetUTF8, silent, saidLater},
		{"of a header without MSH-18", mllp.CharsetLatin1, mllp.CharsetUTF8, short, shortUTF8},
		{"into that in which it is", "", mllp.CharsetLatin1, latin, latin},
		{"of nothing but ASCII", "", mllp.CharsetUTF8, string(message("M1")), string(message("M1"))},
		{"from UTF-8 to one that has the characters", "", mllp.CharsetLatin1, said, latin},
		{"from UTF-8 to one that has not", "", mllp.CharsetASCII, said, ""},
		{"from bytes that are not in the set", "", mllp.CharsetUTF8, silent, ""},
		{"from a set that nobody knows", "", mllp.CharsetUTF8, strings.Replace(latin, "8859/1", "KOI-7", 1), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lab := newInbox(t, new(mllp.Server))
			dest := toTCP("lab", lab.addr)
			dest.TCP.CharsetEncoding, dest.Queue.OnPoison = tt.dest, "deadletter"
			ch := channel("adt", toChannel("on", "second"))
			ch.Source.TCP.CharsetEncoding = tt.source
			st := openStore(t, t.TempDir())
			e := start(t, st, ch, channel("second", dest)) // the note of the source goes along
			_, err := dial(t, e.addr("adt"), nil).Send(t.Context(), []byte(tt.sent))
			require.NoError(t, err)
			if tt.want == "" {
				eventually(t, "the message is set aside", func() bool { return e.stats("second").Error == 1 })
				dead, err := st.DeadLetters(t.Context(), "second", "lab", 0, 1)
				require.NoError(t, err)
				assert.Equal(t, tt.sent, string(dead[0].Message.Raw), "the store has the bytes as they came")
				assert.False(t, dead[0].MaybeSent)
				assert.Contains(t, dead[0].LastError, "cannot be converted")
				assert.NotContains(t, dead[0].LastError+e.log.String(), "ller", "nothing of the message is shown")
				assert.Empty(t, lab.messages())
				return
			}
			eventually(t, "the message is delivered", func() bool { return e.stats("second").Sent == 1 })
			assert.Equal(t, []string{tt.want}, lab.messages())
		})
	}
}
