package mllp_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

func TestAThousandHalfSentFramesStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const conns, limit, budget = 1000, 256 << 10, 4 << 20
		s := serve(t, &mllp.Server{MaxMessageBytes: limit, MaxBufferedBytes: budget, MaxConnsPerHost: -1, FrameTimeout: time.Hour})
		long := string(adt("id1"))
		long += strings.Repeat("x", limit-len(long))
		half := "\x0b" + long[:limit*3/4]
		var before, during runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var (
			wg       sync.WaitGroup
			finish   = make(chan struct{})
			answered atomic.Int32
		)
		for i := range conns {
			raw, err := s.ln.DialFrom(net.IPv4(10, 0, 0, byte(i%10)))
			require.NoError(t, err)
			c := s.callOn(raw)
			wg.Go(func() {
				io.WriteString(c.Conn, half)
				<-finish
				io.WriteString(c.Conn, long[limit*3/4:]+"\x1c\r")
				if c.hear() == "AA id1" {
					answered.Add(1)
				}
			})
		}
		synctest.Wait()
		runtime.GC()
		runtime.ReadMemStats(&during)
		// Each connection may have 64 KiB without the budget, and the network holds
		// another 64 KiB, but without a budget there would be the frames too.
		most := uint64(budget + conns*(64+64+64)<<10)
		assert.LessOrEqual(t, during.HeapAlloc-min(before.HeapAlloc, during.HeapAlloc), most)
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
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			const limit = 1 << 20
			r := rand.New(rand.NewPCG(seed, 0))
			least := int64(limit+16) / 2 * 5
			s := serve(t, &mllp.Server{
				MaxMessageBytes: limit, MaxConnsPerHost: -1,
				MaxBufferedBytes: least + r.Int64N(2<<20), MaxBufferedBytesPerHost: least + r.Int64N(2<<20),
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
