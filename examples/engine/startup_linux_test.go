package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// An engine with 200 channels, each with a port and two queues of its own, is ready
// within a second. A machine that does other things as well takes longer, so that the
// figure is said, and not held against a limit:
//
//	go test ./examples/engine -run StartUp -v
func TestStartUpWithTwoHundredChannels(t *testing.T) {
	const channels = 200
	// Addresses that no other process uses have all ports free.
	host := func(i int) string { return fmt.Sprintf("127.%d.%d.%d", 2+os.Getpid()%250, 1+os.Getpid()/250%250, 1+i) }
	var text strings.Builder
	text.WriteString("channels:\n")
	for i := range channels {
		fmt.Fprintf(&text, "  - id: c%d\n    source: {type: tcp, host: %s, port: 6661}\n"+
			"    destinations: [{name: lab, type: tcp, host: 127.0.0.1, port: 1}, {name: archive, type: file, directory: ./archive%d}]\n", i, host(i), i)
	}
	path := writeConfig(t, "%s", text.String())
	for _, start := range []string{"first", "second"} { // the first makes the database, and a user
		began := time.Now()
		p := launch(t, nil, "-config", path)
		p.says("engine ready")
		took := time.Since(began)
		assert.Equal(t, channels, strings.Count(p.stderr.String(), `msg="channel started"`))
		for _, i := range []int{0, channels - 1} {
			conn, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", host(i)+":6661")
			require.NoError(t, err)
			_, err = conn.Send(t.Context(), message("M1"))
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
		p.signal(syscall.SIGTERM)
		assert.Equal(t, 0, p.code())
		used := p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
		t.Logf("%s start: ready with %d channels after %v; until its end the process used %v of a processor",
			start, channels, took.Round(time.Millisecond), used.Round(time.Millisecond))
	}
}
