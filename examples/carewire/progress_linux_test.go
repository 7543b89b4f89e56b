package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/carewire/carewire/mllp"
)

// A screen is a terminal, and what was written to it.
type screen struct {
	terminal *os.File // the side of the program

	mu   sync.Mutex
	text strings.Builder // guarded by mu
	done chan struct{}   // closed when everything that was written is in text
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	behind, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(behind.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetUint32(int(behind.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	s := &screen{done: make(chan struct{})}
	s.terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	go func() {
		defer close(s.done)
		defer behind.Close()
		for buf := make([]byte, 4096); ; {
			n, err := behind.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // EIO: the program's side is closed
				return
			}
		}
	}()
	t.Cleanup(func() {
		s.terminal.Close()
		<-s.done
	})
	return s
}

func (s *screen) shows() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// Where a person watches, long work shows how far it has got, and leaves a clean
// line behind; what a script reads has nothing of it.
func TestLongWorkShowsItsProgressOnATerminalAlone(t *testing.T) {
	const shown = "sending"
	s := newScreen(t)
	var out bytes.Buffer
	// As many as it takes for the bar to be seen; then the peer hangs up.
	var taken int // by the one connection
	p := answering(t, func(*mllp.Header) string {
		if taken++; taken == 200_000 || strings.Contains(s.shows(), shown) {
			return ""
		}
		return "AA"
	})
	args := []string{"mllp", "send", "--addr", p.addr, "--repeat", "1000000", file(t, "one.hl7", adt("M1"))}
	status := run(t.Context(), args, strings.NewReader(""), &out, s.terminal)
	assert.Equal(t, exitUnknown, status)
	require.NoError(t, s.terminal.Close())
	<-s.done
	drawn := s.shows()
	assert.Regexp(t, `sending .*\(\d+/1000000, `, drawn, "how many of how many")
	assert.NotContains(t, out.String(), shown)
	assert.NotContains(t, drawn[strings.LastIndex(drawn, "\r")+1:], shown, "the bar is off the screen at the end")

	t.Run("and where nobody watches, nothing", func(t *testing.T) {
		r := carewire(t, "mllp", "send", "--addr", answering(t, always("AA")).addr, "--repeat", "50", file(t, "one.hl7", adt("M1")))
		assert.Equal(t, exitOK, r.status)
		assert.NotContains(t, r.err+r.out, shown)
	})
}
