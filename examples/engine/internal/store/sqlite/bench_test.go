package sqlite_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/barecommit"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

// BenchmarkIntake measures confirmed messages of 1 KiB a second, and, in the
// same run, what a bare group commit on SQLite does: one table, one INSERT of a
// blob for each message, the same settings. "ratio" is ours to that.
func BenchmarkIntake(b *testing.B) {
	for _, callers := range []int{1, 50} {
		for _, destinations := range []int{1, 3} {
			b.Run(fmt.Sprintf("callers=%d/destinations=%d", callers, destinations), func(b *testing.B) {
				b.ReportAllocs()
				st, err := sqlite.Open(b.Context(), b.TempDir(), nil)
				require.NoError(b, err)
				defer st.Close()
				in := store.Intake{Channel: "c", ControlID: "MSG00001", Raw: make([]byte, 1024)}
				for d := range destinations {
					in.Destinations = append(in.Destinations, "d"+strconv.Itoa(d))
				}
				compare(b, callers, func(ctx context.Context) error {
					_, err := st.Intake(ctx, in)
					return err
				})
			})
		}
	}
}

// BenchmarkIntakeWhileDelivering is BenchmarkIntake with a worker that completes
// each delivery as soon as it is there: a destination that needs no time at all.
func BenchmarkIntakeWhileDelivering(b *testing.B) {
	for _, callers := range []int{1, 50} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			st, err := sqlite.Open(b.Context(), b.TempDir(), nil)
			require.NoError(b, err)
			defer st.Close()
			in := store.Intake{Channel: "c", ControlID: "MSG00001", Raw: make([]byte, 1024), Destinations: []string{"d"}}
			wake := make(chan struct{}, 1)
			ours := func(ctx context.Context) error {
				_, err := st.Intake(ctx, in)
				select {
				case wake <- struct{}{}:
				default:
				}
				return err
			}
			var worker sync.WaitGroup
			var delivered atomic.Int64
			worker.Go(func() {
				for range wake {
					for {
						list, err := st.Pending(b.Context(), "c", "d", 0, 16)
						if err != nil || len(list) == 0 {
							break
						}
						for i := range list {
							st.Attempting(&list[i])
							if err := st.Delivered(b.Context(), &list[i]); err != nil {
								b.Error(err)
							}
							delivered.Add(1)
						}
					}
				}
			})
			compare(b, callers, ours)
			b.ReportMetric(float64(delivered.Load())/float64(b.N), "delivered/op")
			close(wake)
			worker.Wait()
		})
	}
}

// TestIntakeAllocations is a budget: of an intake by itself, the writer's part
// included. A group shares most of it. About half is what database/sql and the
// driver take for six statements.
func TestIntakeAllocations(t *testing.T) {
	st, err := sqlite.Open(t.Context(), t.TempDir(), &sqlite.Options{Reserve: -1})
	require.NoError(t, err)
	defer st.Close()
	in := store.Intake{Channel: "c", ControlID: "MSG00001", Raw: make([]byte, 1024), Destinations: []string{"d"}}
	allocations := testing.AllocsPerRun(100, func() {
		_, err := st.Intake(t.Context(), in)
		require.NoError(t, err)
	})
	t.Logf("%v allocations", allocations)
	require.LessOrEqual(t, allocations, 40.0)
}

// compare runs ours and the bare loop by turns, in small slices, so that whatever
// else the machine does hits both.
func compare(b *testing.B, callers int, ours func(context.Context) error) {
	b.Helper()
	bare, err := barecommit.Open(b.Context(), b.TempDir(), 1024)
	require.NoError(b, err)
	defer bare.Close()
	var tOurs, tBare time.Duration
	const slices = 40
	b.ResetTimer()
	for i := range slices {
		n := b.N/slices + min(1, max(0, b.N%slices-i))
		tOurs += elapsed(b, callers, n, ours)
		b.StopTimer()
		tBare += elapsed(b, callers, n, func(context.Context) error { return bare.Put() })
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/tOurs.Seconds(), "msg/s")
	b.ReportMetric(float64(b.N)/tBare.Seconds(), "bare-msg/s")
	b.ReportMetric(tBare.Seconds()/tOurs.Seconds(), "ratio")
}

// elapsed is how long n puts take, from as many callers.
func elapsed(b *testing.B, callers, n int, put func(context.Context) error) time.Duration {
	start := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		mine := n/callers + min(1, max(0, n%callers-c))
		wg.Go(func() {
			for range mine {
				if err := put(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
