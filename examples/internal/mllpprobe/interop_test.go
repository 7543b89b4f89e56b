package mllpprobe_test

import (
	"bufio"
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/internal/mllpprobe"
	"github.com/carewire/carewire/internal/interop"
)

// debianPython is the interpreter that Debian's python3-hl7 belongs to; another
// one may come first on PATH.
const debianPython = "/usr/bin/python3"

// pythonHL7 runs a receiver made of python-hl7 until the test ends, and returns
// its address.
func pythonHL7(t *testing.T) string {
	t.Helper()
	python := interop.Need(t, debianPython)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	if exec.CommandContext(ctx, python, "-c", "import hl7.mllp").Run() != nil {
		interop.Missing(t, "python3-hl7 is not installed")
	}
	cmd := exec.CommandContext(ctx, python, "testdata/python_hl7_server.py")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	port, err := bufio.NewReader(out).ReadString('\n')
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	require.NoError(t, err, "the receiver prints its port")
	return "127.0.0.1:" + strings.TrimSpace(port)
}

func TestPythonHL7HasItsKnownDefects(t *testing.T) {
	addr := pythonHL7(t)
	all := results(t, &mllpprobe.Probe{Timeout: 3 * time.Second, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}})
	assert.Equal(t, []string{
		"no-cr-then-next: AA 1",  // it swallows both into one
		"truncated: AA 1",        // and so here
		"batch-count: AA 2",      // it looks at the first MSH alone
		"ack-as-message: AA 1-2", // it answers whatever it is told to
	}, graded(all, mllpprobe.Bad))
	differs := graded(all, mllpprobe.Differs)
	for i, line := range differs {
		differs[i] = strings.ReplaceAll(line, "reset", "closed") // which it is depends on what was read
	}
	for _, line := range []string{
		"64-kib: closed", // its limit
		"space-between: closed", "nul-between: closed", "text-between: closed", "lf-after: AA 1, closed",
	} {
		assert.Contains(t, differs, line)
	}
	assert.Contains(t, graded(all, mllpprobe.OK), "thousand-in-one: AA 1-1000", "one after the other, in order")
}
