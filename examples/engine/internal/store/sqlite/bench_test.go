package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
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

// compare runs ours and the bare loop by turns, in small slices, so that whatever
// else the machine does hits both.
func compare(b *testing.B, callers int, ours func(context.Context) error) {
	b.Helper()
	bare := newBareLoop(b)
	defer bare.close()
	var tOurs, tBare time.Duration
	const slices = 40
	b.ResetTimer()
	for i := range slices {
		n := b.N/slices + min(1, max(0, b.N%slices-i))
		tOurs += elapsed(b, callers, n, ours)
		b.StopTimer()
		tBare += elapsed(b, callers, n, bare.put)
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

// A bareLoop is the least group commit that SQLite can do.
type bareLoop struct {
	requests chan chan error
	stopped  chan struct{}
}

func newBareLoop(b *testing.B) *bareLoop {
	b.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "bare.db")+
		"?_pragma=journal_mode(wal)&_pragma=synchronous(2)&_pragma=mmap_size(0)")
	require.NoError(b, err)
	conn, err := db.Conn(b.Context())
	require.NoError(b, err)
	_, err = conn.ExecContext(b.Context(), "CREATE TABLE t (id INTEGER PRIMARY KEY, raw BLOB)")
	require.NoError(b, err)
	var stmts [3]*sql.Stmt
	for i, query := range []string{"BEGIN IMMEDIATE", "INSERT INTO t (raw) VALUES (?)", "COMMIT"} {
		stmts[i], err = conn.PrepareContext(b.Context(), query)
		require.NoError(b, err)
	}
	l := &bareLoop{requests: make(chan chan error), stopped: make(chan struct{})}
	raw := make([]byte, 1024)
	go func() {
		defer close(l.stopped)
		defer db.Close()
		defer conn.Close()
		for first := range l.requests {
			group := []chan error{first}
			for more := true; more && len(group) < 256; {
				select {
				case r := <-l.requests:
					group = append(group, r)
				default:
					more = false
				}
			}
			_, err := stmts[0].Exec()
			for range group {
				if err == nil {
					_, err = stmts[1].Exec(raw)
				}
			}
			if err == nil {
				_, err = stmts[2].Exec()
			}
			for _, r := range group {
				r <- err
			}
		}
	}()
	return l
}

func (l *bareLoop) put(context.Context) error {
	done := make(chan error, 1)
	l.requests <- done
	return <-done
}

func (l *bareLoop) close() {
	close(l.requests)
	<-l.stopped
}
