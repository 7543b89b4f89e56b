package engine_test

import (
	"flag"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/mllp"
)

var cycles = flag.Int("cycles", 300, "how many times a receiver takes a message and does not answer")

// used is what cycles must not use up.
type used struct {
	descriptors, goroutines int
	heap                    int64 // bytes in use
}

func inUse(t *testing.T) used {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		interop.Missing(t, err.Error())
	}
	runtime.GC()
	runtime.GC() // what the first has freed of finalizers
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return used{len(entries), runtime.NumGoroutine(), int64(stats.HeapAlloc)}
}

// Row 12: a receiver that takes a connection and a message and never answers, or hangs
// up, uses up nothing, however often it does. For ten thousand times:
//
//	go test ./examples/engine/internal/engine -run DoesNotAnswer -cycles 10000 -timeout 30m
func TestAReceiverThatDoesNotAnswerUsesUpNothing(t *testing.T) {
	silent, _ := mute(t)
	hangsUp := newReceiver(t)
	hangsUp.answers(func(string) error { return mllp.ErrNoReply })
	for name, addr := range map[string]string{"silent": silent, "hangs up": hangsUp.addr} {
		t.Run(name, func(t *testing.T) {
			dest := toTCP("lab", addr)
			dest.TCP.QueueOnResponseTimeout = new(bool) // each message is one cycle
			if name == "silent" {
				dest.TCP.ResponseTimeout = 5 * time.Millisecond
			}
			e := start(t, openStore(t, t.TempDir()), channel("adt", dest))
			conn := dial(t, e.addr("adt"), nil)
			sent := int64(0)
			cycle := func(n int) {
				send(t, conn, ids("M", n)...)
				sent += int64(n)
				last, quiet := int64(-1), time.Now()
				for e.stats("adt").Error < sent {
					time.Sleep(10 * time.Millisecond)
					if now := e.stats("adt").Error; now != last {
						last, quiet = now, time.Now()
					}
					if time.Since(quiet) > patience {
						t.Fatalf("after %d of %d cycles nothing happens", last, sent)
					}
				}
			}
			cycle(20)
			before := inUse(t)
			cycle(*cycles)
			var after used
			eventually(t, "descriptors and goroutines are as before", func() bool {
				after = inUse(t)
				return after.descriptors <= before.descriptors+2 && after.goroutines <= before.goroutines+2
			})
			t.Logf("%d cycles: before %+v, after %+v", *cycles, before, after)
			// The log of this test grows by some 300 bytes a cycle. A connection that was
			// kept would be 8 KiB and more.
			assert.Less(t, after.heap-before.heap, int64(4<<20)+int64(*cycles)<<10)
		})
	}
}
