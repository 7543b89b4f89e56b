package dicomtls_test

import (
	"context"
	"crypto/tls"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/testpki"
)

// What hangs on deadlines and on reading while a handler runs is the same over TLS.
func TestAssociationsOverTLS(t *testing.T) {
	ca := testpki.NewCA(t, "CA")
	server := ca.Server("192.0.2.1").TLS()
	var cause error
	srv := &dicomtls.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{server}},
		Store: dicomtls.StoreHandlerFunc(func(ctx context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				return dicomtls.StatusOutOfResources
			}
			if n > int64(len(someData)) {
				<-ctx.Done()
				cause = context.Cause(ctx)
			}
			return dicomtls.StatusSuccess
		}),
	}
	in(t, srv, func(t *testing.T, s *site) {
		secured := func() *peer {
			c, err := s.mem.Dial()
			require.NoError(t, err)
			p := &peer{t, tls.Client(c, &tls.Config{RootCAs: ca.Pool(), ServerName: "192.0.2.1"})}
			p.say(associateRQ{}.String())
			require.Equal(t, "AC 1=0 3=0", p.hear())
			return p
		}
		p := secured()
		assert.Equal(t, []string{"P 8001 0000 to 1"}, p.talk(store(1, "1.2.3", someData)))
		p.say(store(2, "1.2.4", someData), pdata(pdv(1, 3, echoRQ(3))), releaseRQ)
		assert.Equal(t, []string{"P 8001 0000 to 2", "P 8030 0000 to 3", "release!"}, []string{p.hear(), p.hear(), p.hear()})
		p.Close()

		p = secured()
		p.say(store(1, "1.2.3", someData+someData))
		synctest.Wait()
		began := time.Now()
		p.say(abort(0, 0))
		synctest.Wait()
		assert.ErrorContains(t, cause, "aborted")
		assert.Zero(t, time.Since(began))
		p.Close()

		p = secured()
		assert.Equal(t, []string{"ABORT 0,0", "end"}, p.until())
		assert.Equal(t, time.Minute, time.Since(began).Truncate(time.Minute))

		p = secured()
		p.say(releaseRQ)
		assert.Equal(t, "release!", p.hear())
		p.Conn.(*tls.Conn).NetConn().Close() // without TLS's own farewell
		synctest.Wait()
		assert.Equal(t, 2, s.count("closed released"))
	})
}
