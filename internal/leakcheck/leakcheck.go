// Package leakcheck fails a package's tests when goroutines outlive them.
package leakcheck

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// grace is how long goroutines that are already on their way out may take.
const grace = 5 * time.Second

// Main runs the tests of a package and then requires that every goroutine that
// they started has ended. Call it from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := wait(grace); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "leakcheck: %d goroutines outlived the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // this is the test binary's main
}

// wait returns the stacks of the goroutines that are still there after limit.
func wait(limit time.Duration) []string {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		left := strays()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(pause)
	}
}

// strays returns the stacks of all goroutines but this one and those that the
// runtime and the testing package keep for themselves.
func strays() []string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var left []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 || // this goroutine comes first
			strings.Contains(stack, "testing.(*M).startAlarm") ||
			strings.Contains(stack, "testing.runFuzzing") ||
			strings.Contains(stack, "os/signal.loop") ||
			strings.Contains(stack, "os/signal.signal_recv") ||
			strings.Contains(stack, "runtime.ensureSigM") {
			continue
		}
		left = append(left, stack)
	}
	return left
}
