package mllp_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

func TestTheDrainTellsWhatItFinishedAndWhatItAbandoned(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{DrainTimeout: 10 * time.Second, Handler: mllp.HandlerFunc(func(ctx context.Context, r *mllp.Request) ([]byte, error) {
			switch string(r.Header.ControlID) {
			case "slow":
				time.Sleep(time.Second)
			case "deaf": // to its context
				time.Sleep(time.Hour)
			case "stuck":
				<-ctx.Done()
			}
			return nil, nil
		})})
		say := func(text string) *caller {
			c := s.call()
			c.say(text)
			return c
		}
		before := say(frame(msgA))
		require.Equal(t, "AA id1", before.hear())
		finishing := say(frame(string(adt("slow"))) + frame(msgA))
		stuck, deaf := say(frame(string(adt("stuck")))+frame(msgA)), say(frame(string(adt("deaf"))))
		half := say("\x0b" + msgA[:30])
		synctest.Wait()
		err := s.srv.Shutdown(t.Context())
		var de *mllp.DrainError
		require.ErrorAs(t, err, &de)
		assert.Equal(t, "AA slow", finishing.hear())
		assert.Equal(t, "AA id1", finishing.hear())
		assert.Equal(t, 3, de.Abandoned)
		assert.Equal(t, 2, de.Finished)
		want := []mllp.AbandonedMessage{
			{RemoteAddr: deaf.raw.LocalAddr(), ControlID: "deaf"}, {RemoteAddr: half.raw.LocalAddr()}, {RemoteAddr: stuck.raw.LocalAddr(), ControlID: "stuck"},
		}
		slices.SortFunc(de.Messages, func(a, b mllp.AbandonedMessage) int { return strings.Compare(a.ControlID, b.ControlID) })
		assert.ElementsMatch(t, want, de.Messages)
		assert.NotContains(t, err.Error(), "stuck", "a log gets no control ID")
		assert.ErrorContains(t, err, "3 connections were cut in a message, 2 messages were finished")
		<-s.ended
		require.ErrorAs(t, s.err, &de)
		assert.Equal(t, 3, de.Abandoned)
		assert.Equal(t, 2, de.Finished)
		assert.Len(t, de.Messages, 3)
		e := s.event(mllp.EventDrained)
		assert.Equal(t, []int{2, 3}, []int{e.Finished, e.Abandoned})
		assert.Contains(t, e.String(), "finished=2 abandoned=3")
	})
}

func TestACleanDrainIsToldToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, nil
		})})
		c := s.call()
		c.say(frame(msgA))
		synctest.Wait()
		require.NoError(t, s.srv.Shutdown(t.Context()))
		assert.Equal(t, "AA id1", c.hear())
		<-s.ended
		e := s.event(mllp.EventDrained)
		assert.Equal(t, []int{1, 0}, []int{e.Finished, e.Abandoned})
	})
}

func TestTheListOfAbandonedMessagesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{MaxConnsPerHost: -1})
		for i := range 150 {
			raw, err := s.ln.DialFrom(net.IPv4(10, 0, 0, byte(i)))
			require.NoError(t, err)
			s.callOn(raw).say("\x0bMSH")
		}
		synctest.Wait()
		require.NoError(t, s.srv.Close())
		<-s.ended
		var de *mllp.DrainError
		require.ErrorAs(t, s.err, &de)
		assert.Equal(t, 150, de.Abandoned)
		assert.Len(t, de.Messages, 100)
	})
}
