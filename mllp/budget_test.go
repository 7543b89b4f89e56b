package mllp_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/mllp"
)

func TestAThousandHalfSentFramesStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, budget = 256 << 10, 4 << 20
		conns := 1000
		if raceDetector {
			conns = 100 // whose memory it makes many times larger
		}
		s := serve(t, &mllp.Server{MaxMessageBytes: limit, MaxBufferedBytes: budget, MaxConnsPerHost: -1, FrameTimeout: time.Hour})
		long := string(adt("id1"))
		long = "\x0b" + long + strings.Repeat("x", limit-len(long)) + "\x1c\r"
		var (
			wg              sync.WaitGroup
			finish          = make(chan struct{})
			taken, answered atomic.Int64
		)
		for i := range conns {
			c := s.from(fmt.Sprintf("10.0.0.%d", i%10))
			wg.Go(func() {
				write := func(text string) {
					for part := range slices.Chunk([]byte(text), 8<<10) {
						n, _ := c.Conn.Write(part)
						taken.Add(int64(n))
					}
				}
				write(long[:limit*3/4])
				<-finish
				write(long[limit*3/4:])
				if c.hear() == "AA id1" {
					answered.Add(1)
				}
			})
		}
		synctest.Wait()
		// Each may have 64 KiB without the budget, and the network holds another
		// 64 KiB; without a budget the frames would be in memory, 192 KiB of each.
		assert.LessOrEqual(t, taken.Load(), int64(budget+conns*(128<<10)))
		short := s.call()
		began := time.Now()
		short.say(frame(msgB))
		assert.Equal(t, "AA id2", short.hear())
		assert.Zero(t, time.Since(began), "small messages do not wait")
		close(finish)
		wg.Wait()
		assert.EqualValues(t, conns, answered.Load(), "those that wait are paused, not lost")
		assert.Empty(t, s.told())
	})
}

func TestOneAddressDoesNotUseUpTheMemoryOfOthers(t *testing.T) {
	for name, perHost := range map[string]int64{"by default": 0, "by choice": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const limit = 1 << 20
				s := serve(t, &mllp.Server{
					MaxMessageBytes: limit, MaxBufferedBytes: 16 << 20, MaxBufferedBytesPerHost: perHost, MaxConnsPerHost: -1, FrameTimeout: time.Hour,
				})
				long := string(adt("id1")) + strings.Repeat("x", limit*9/10)
				for range 100 {
					c := s.from("10.0.0.66")
					go io.WriteString(c.Conn, "\x0b"+long) // and never its end
				}
				synctest.Wait()
				began := time.Now()
				c := s.from("10.0.0.1")
				go c.say(frame(long))
				assert.Equal(t, "AA id1", c.hear())
				assert.Zero(t, time.Since(began))
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // the control
		s := serve(t, &mllp.Server{MaxMessageBytes: 1 << 20, MaxBufferedBytes: 16 << 20, MaxBufferedBytesPerHost: -1, MaxConnsPerHost: -1})
		long := string(adt("id1")) + strings.Repeat("x", 900<<10)
		for range 100 {
			c := s.from("10.0.0.66")
			go io.WriteString(c.Conn, "\x0b"+long)
		}
		synctest.Wait()
		began := time.Now()
		c := s.from("10.0.0.1")
		go io.WriteString(c.Conn, frame(long))
		c.hear()
		assert.Positive(t, time.Since(began), "without a limit for an address the others wait")
	})
}

func TestConnectionsThatWaitForMemoryNeverWaitForEachOther(t *testing.T) {
	seeds := uint64(8)
	if raceDetector {
		seeds = 2
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			const limit = 512 << 10
			r := rand.New(rand.NewPCG(seed, 0))
			least := int64(limit+16) / 2 * 5
			s := serve(t, &mllp.Server{
				MaxMessageBytes: limit, MaxConnsPerHost: -1,
				MaxBufferedBytes: least + r.Int64N(1<<20), MaxBufferedBytesPerHost: least + r.Int64N(1<<20),
			})
			began := time.Now()
			var wg sync.WaitGroup
			for i := range 30 {
				c := s.from(fmt.Sprintf("10.0.0.%d", r.IntN(3)))
				sizes := [...]int{100 << 10, limit - 1000, 200 << 10, r.IntN(limit - 1000)}
				r.Shuffle(len(sizes), func(i, j int) { sizes[i], sizes[j] = sizes[j], sizes[i] })
				wg.Go(func() {
					for _, n := range sizes {
						id := fmt.Sprintf("c%d-%d", i, n)
						go io.WriteString(c.Conn, frame(string(adt(id))+strings.Repeat("x", n)))
						if got := c.hear(); got != "AA "+id {
							t.Errorf("%s after %s", got, time.Since(began))
							return
						}
					}
				})
			}
			wg.Wait()
			assert.LessOrEqual(t, time.Since(began), 5*time.Second, "nobody waited for a time to be over")
			assert.Empty(t, s.told())
		})
	}
}
