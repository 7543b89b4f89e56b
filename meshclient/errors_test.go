package meshclient_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// sending is what a queue asks of every error of sending.
type sending interface {
	error
	MaybeDelivered() bool
	Retryable() bool
	Code() string
}

func TestEveryBodyOfAnErrorMakesATypedErrorThatQuotesNothing(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	const secret = "Mrs Planted 9434765919"
	for name, row := range map[string]struct {
		status int
		body   string
		shape  meshclient.Shape
		code   string
		is     error
		text   string
	}{
		"version 2":          {417, `{"message_id":"M1","internal_id":"i","detail":[{"event":"SEND","code":"12","msg":"` + secret + `"}]}`, meshclient.ShapeList, "12", meshclient.ErrUnregisteredRecipient, "code 12 (SEND)"},
		"version 1":          {417, `{"messageID":"M1","errorEvent":"SEND","errorCode":"12","errorDescription":"` + secret + `"}`, meshclient.ShapeSingle, "12", meshclient.ErrUnregisteredRecipient, "code 12 (SEND)"},
		"a code as a number": {417, `{"errorEvent":"SEND","errorCode":17,"errorDescription":"` + secret + `"}`, meshclient.ShapeSingle, "17", meshclient.ErrWorkflow, "workflow"},
		"not allowed":        {417, `{"detail":[{"event":"SEND","code":"16","msg":"x"}]}`, meshclient.ShapeList, "16", meshclient.ErrWorkflow, ""},
		"a code in letters":  {417, `{"detail":[{"event":"SEND","code":"EPL-151","msg":"x"}]}`, meshclient.ShapeList, "EPL-151", meshclient.ErrInvalid, "EPL-151"},
		"an unknown code":    {417, `{"detail":[{"event":"SEND","code":"InvalidHeaderChunks","msg":"x"}]}`, meshclient.ShapeList, "InvalidHeaderChunks", meshclient.ErrInvalid, "InvalidHeaderChunks"},
		"a code that is not": {417, `{"detail":[{"event":"SEND","code":"` + secret + `<>","msg":"x"}]}`, meshclient.ShapeList, "417", meshclient.ErrInvalid, ""},
		"validation":         {400, `{"detail":[{"loc":["query","max_results"],"msg":"` + secret + `","type":"value_error"}]}`, meshclient.ShapeValidation, "400", meshclient.ErrInvalid, ""},
		"a message":          {400, `{"message":"` + secret + `","internal_id":"i"}`, meshclient.ShapeMessage, "400", meshclient.ErrInvalid, ""},
		"detail as text":     {404, `{"detail":"Not Found"}`, meshclient.ShapeMessage, "404", meshclient.ErrNotFound, ""},
		"no code":            {403, `{"detail":[{"event":"","code":"","msg":"` + secret + `"}]}`, meshclient.ShapeList, "403", meshclient.ErrAuth, ""},
		"html":               {413, "<html><body>" + secret + "</body></html>", meshclient.ShapeHTML, "413", meshclient.ErrTooLarge, ""},
		"soap":               {501, strings.Replace(meshtest.SOAP, "internal error", secret, 1), meshclient.ShapeSOAP, "501", nil, ""},
		"nothing":            {410, "", meshclient.ShapeEmpty, "410", meshclient.ErrGone, ""},
		"null":               {410, " null\n", meshclient.ShapeEmpty, "410", meshclient.ErrGone, ""},
		"cut off":            {400, `{"detail":[{"event":"SEND","code":"12","msg":"` + secret, meshclient.ShapeOther, "400", meshclient.ErrInvalid, ""},
		"text":               {423, secret, meshclient.ShapeOther, "423", meshclient.ErrFinalised, ""},
		"10 MB":              {400, `{"message":"` + strings.Repeat(secret, 500_000) + `"}`, meshclient.ShapeOther, "400", meshclient.ErrInvalid, ""},
		"a redirect":         {302, "", meshclient.ShapeEmpty, "302", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.Requests())
			s.Script(meshtest.Fault{Op: "count", Status: row.status, Body: row.body, Header: http.Header{"Location": {"https://evil.example/"}}})
			_, err := a.Count(bounded(t))
			e := failed(t, err)
			assert.Equal(t, row.shape, e.Shape)
			assert.Equal(t, row.code, e.Code())
			assert.Equal(t, row.status, e.Status)
			assert.Contains(t, e.Error(), row.text)
			assert.NotContains(t, e.Error(), "Planted")
			assert.LessOrEqual(t, len(e.Description), 4<<10)
			if row.is != nil {
				assert.ErrorIs(t, e, row.is)
			}
			var queue sending
			require.ErrorAs(t, fmt.Errorf("channel 7: %w", err), &queue)
			assert.False(t, queue.Retryable())
			assert.False(t, queue.MaybeDelivered())
			assert.Len(t, s.Requests(), before+1, "it is not tried again")
		})
	}
}

func TestWhatTheServerRefusesIsTriedOnce(t *testing.T) {
	s := serve(t, meshtest.Options{Workflows: []string{"TEST_WORKFLOW"}})
	wrong := connect(t, s, alice, func(c *meshclient.Config) { c.Password = "wrong" })
	e := failed(t, wrong.Handshake(bounded(t)))
	assert.ErrorIs(t, e, meshclient.ErrAuth)
	assert.NotErrorIs(t, e, meshclient.ErrClockSkew)
	assert.Equal(t, "Mailbox id, password or shared key are wrong", e.Description)
	assert.Len(t, s.Requests(), 1)

	a := connect(t, s, alice)
	m := message([]byte("x"))
	m.To = "NOBODY"
	_, err := a.Send(bounded(t), m)
	assert.ErrorIs(t, err, meshclient.ErrUnregisteredRecipient)
	m.To, m.WorkflowID = bob, "OTHER"
	_, err = a.Send(bounded(t), m)
	e = failed(t, err)
	assert.ErrorIs(t, e, meshclient.ErrWorkflow)
	assert.Equal(t, "17", e.Code())
	assert.NotEmpty(t, e.LocalID)
	assert.Len(t, ops(s, "send"), 2)

	s.Disable(alice)
	assert.ErrorIs(t, a.Handshake(bounded(t)), meshclient.ErrAuth)
}

func TestServerErrorsOfWhatCanBeRepeatedAreRepeated(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	for _, status := range []int{425, 429, 500, 502, 503, 504} {
		id := deliver(s, nil, "", []byte("x"))
		for _, op := range []string{"handshake", "inbox", "head", "download", "track", "acknowledge"} {
			s.Script(meshtest.Fault{Op: op, Status: status, Body: meshtest.SOAP})
		}
		require.NoError(t, b.Handshake(bounded(t)))
		_, err := b.Inbox(bounded(t), nil)
		require.NoError(t, err)
		_, err = b.Head(bounded(t), id)
		require.NoError(t, err)
		_, err = receive(t, b, id, nil)
		require.NoError(t, err)
		_, err = b.Track(bounded(t), id)
		require.ErrorIs(t, err, meshclient.ErrNotFound)
		require.NoError(t, b.Acknowledge(bounded(t), id))
	}
	assert.Empty(t, s.Waiting(bob))
	id := deliver(s, nil, "", []byte("x"))
	for _, op := range []string{"handshake", "download", "acknowledge"} {
		s.Script(meshtest.Fault{Op: op, Drop: true}, meshtest.Fault{Op: op, DropAfter: true})
	}
	require.NoError(t, b.Handshake(bounded(t)))
	require.NoError(t, b.Acknowledge(bounded(t), id))

	s.Script(meshtest.Fault{Op: "count", Status: 503, Times: 9})
	_, err := b.Count(bounded(t))
	assert.True(t, failed(t, err).Retryable())
	assert.Len(t, ops(s, "count"), 4, "there is an end of it")
}

func TestAServersRetryAfterIsHeededUpToFiveMinutes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, ln := inMemory(t, meshtest.Options{})
		a := connect(t, s, alice, func(c *meshclient.Config) { c.NetDialer = ln })
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		for _, row := range []struct {
			value string
			want  time.Duration
		}{{in(-time.Hour), 0}, {in(time.Minute), time.Minute}, {"7", 7 * time.Second}, {"86400", 5 * time.Minute}} {
			value, want := row.value, row.want
			s.Script(meshtest.Fault{Op: "ping", Status: 429, Header: http.Header{"Retry-After": {value}}})
			start := time.Now()
			require.NoError(t, a.Ping(t.Context()))
			assert.InDelta(t, want, time.Since(start), float64(time.Second), value)
		}
	})
}
