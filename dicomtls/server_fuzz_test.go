package dicomtls_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// FuzzServer sends anything at all in an association: the server always comes to
// an end with the connection, and stores nothing but what was sent whole.
func FuzzServer(f *testing.F) {
	for _, say := range []string{
		store(1, "1.2.3", someData) + releaseRQ,
		pdata(pdv(1, 1, echoRQ(1)[:5])) + pdata(pdv(1, 3, echoRQ(1)[5:])) + abort(0, 0),
		pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3")), pdv(3, 0, someData)) + pdata(pdv(1, 3, echoRQ(2))),
		pdata(pdv(5, 3, commandSet(uid(3, commitment), el(0x100, le16(0x130)), el(0x110, le16(4)), el(0x800, le16(0)), uid(0x1001, commitment+".1"), el(0x1008, le16(1)))), pdv(5, 2, implicitElement(0x1195, "1.2.3")+refSeq+sequenceItem(instanceOne, "")+seqStop)),
	} {
		f.Add([]byte(say))
	}
	k := newKeeper()
	s := inMemory(f, &dicomtls.Server{
		Store: k, Commit: dicomtls.CommitHandlerFunc(func(_ context.Context, r *dicomtls.CommitRequest) dicomtls.Status {
			r.Report = &dicomtls.CommitReport{TransactionUID: r.TransactionUID, Committed: r.References}
			return dicomtls.StatusSuccess
		}), Commitments: new(dicomtls.Commitments),
		MaxAssociations: -1, MaxAssociationsPerAE: -1, MaxAssociationsPerHost: -1, LingerTimeout: time.Millisecond,
	})
	f.Fuzz(func(t *testing.T, say []byte) {
		c, err := s.mem.Dial()
		require.NoError(t, err)
		p := &peer{t, c}
		defer p.Close()
		p.say(associateRQ{contexts: []string{proposal(1, verification, implicitLE), proposal(3, ctImage, explicitLE), proposal(5, commitment, implicitLE)}}.String())
		require.Equal(t, "AC 1=0 3=0 5=0", p.hear())
		go func() {
			c.Write(say)
			c.CloseWrite()
		}()
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			require.ErrorIs(t, err, syscall.ECONNRESET, "it ends by itself")
		}
		for _, data := range k.forget() { // what was stored is what was sent
			assert.LessOrEqual(t, len(data), len(say))
			assert.NotEmpty(t, data)
		}
	})
}

func TestManySendersAtATimeDoNotDisturbEachOther(t *testing.T) {
	k := newKeeper()
	s := listen(t, &dicomtls.Server{Store: k, Window: 4})
	want := make(map[string]string)
	var wg sync.WaitGroup
	for sender := range 8 {
		var objects []dicomtls.Object
		for i := range 20 {
			instance := fmt.Sprintf("1.2.%d.%d", sender+1, i+1)
			data := imageData(instance, 100+1000*i)
			want[instance] = string(data)
			objects = append(objects, dicomtls.BytesObject(secondaryCapture, instance, explicitLE, data))
		}
		wg.Go(func() {
			d := &dicomtls.Dialer{AETitle: fmt.Sprint("SENDER", sender), Window: 1 + sender%3}
			for _, r := range d.StoreAll(context.Background(), "tcp", s.addr, objects, nil) {
				assert.NoError(t, r.Err)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, want, k.kept())
	s.waitFor("closed released", 8)
	assert.Empty(t, s.strange())
}
