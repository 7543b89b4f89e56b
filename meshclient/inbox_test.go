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

func TestEveryWaitingMessageIsListedOnceOverManyPages(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	for _, n := range []int{0, 600, 601} { // 600, then 1201 in all
		for range n {
			deliver(s, nil, "", []byte("x"))
		}
		listed := map[string]int{}
		for id, err := range b.Messages(bounded(t), nil) {
			require.NoError(t, err)
			listed[id]++
		}
		assert.Len(t, listed, len(s.Waiting(bob)))
	}
	assert.Len(t, ops(s, "inbox"), 1+2+3)
	page, err := b.Inbox(bounded(t), &meshclient.Query{MaxResults: 10})
	require.NoError(t, err)
	assert.Len(t, page.MessageIDs, 10)
	assert.Equal(t, 1201, page.Approx)
	assert.NotEmpty(t, page.Next)
	assert.False(t, page.Full)
	n, err := b.Count(bounded(t))
	require.NoError(t, err)
	assert.Equal(t, 1201, n)
}

func TestMessagesThatComeAndGoWhileTheyAreListedAreListedOnce(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	for range 35 {
		deliver(s, nil, "", []byte("x"))
	}
	listed := map[string]int{}
	for id, err := range b.Messages(bounded(t), &meshclient.Query{MaxResults: 10}) {
		require.NoError(t, err)
		listed[id]++
		require.NoError(t, b.Acknowledge(bounded(t), id))
		if len(listed) == 5 {
			deliver(s, nil, "", []byte("x"))
		}
	}
	assert.Len(t, listed, 36)
	assert.Empty(t, s.Waiting(bob))
}

func TestAPageAsFullAsVersion1MakesThemSaysSo(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	s.Script(meshtest.Fault{Op: "inbox", Status: 200, Body: `{"messages":["` + strings.Repeat(`A","`, 499) + `B"]}`})
	page, err := b.Inbox(bounded(t), nil)
	require.NoError(t, err)
	assert.Len(t, page.MessageIDs, 500)
	assert.True(t, page.Full)
	assert.Equal(t, -1, page.Approx)
}

func TestAnEmptyPageWithALinkGoesOnAndLinksThatLeadAwayDoNot(t *testing.T) {
	inbox := "/messageexchange/MAILBOX2/inbox"
	page := func(ids, next string) meshtest.Fault {
		return meshtest.Fault{Op: "inbox", Status: 200, Body: fmt.Sprintf(`{"messages":[%s],"links":{"self":"x","next":%q}}`, ids, next)}
	}
	list := func(faults ...meshtest.Fault) ([]string, []meshtest.Request, error) {
		s := serve(t, meshtest.Options{})
		s.Script(faults...)
		var ids []string
		for id, err := range connect(t, s, bob).Messages(bounded(t), &meshclient.Query{WorkflowFilter: "W1"}) {
			if err != nil {
				return ids, s.Requests(), err
			}
			ids = append(ids, id)
		}
		return ids, s.Requests(), nil
	}
	ids, _, err := list(page("", inbox+"?continue_from=a"), page(`"M1"`, inbox+"?continue_from=b"), page(`"M1","M2"`, ""))
	require.NoError(t, err)
	assert.Equal(t, []string{"M1", "M2"}, ids)
	for name, next := range map[string]string{
		"another host":   "https://evil.example" + inbox + "?continue_from=a",
		"a host alone":   "//evil.example" + inbox + "?continue_from=a",
		"another inbox":  "/messageexchange/MAILBOX1/inbox?continue_from=a",
		"another path":   "/?continue_from=a",
		"the first page": inbox,
		"no URL":         "http://[",
	} {
		_, requests, err := list(page(`"M1"`, next))
		assert.ErrorIs(t, err, meshclient.ErrBadAnswer, name)
		assert.Len(t, requests, 1, name)
	}
	_, requests, err := list(page(`"M1"`, inbox+"?continue_from=a"), page(`"M2"`, inbox+"?continue_from=a"))
	assert.ErrorIs(t, err, meshclient.ErrBadAnswer, "a circle")
	assert.Len(t, requests, 2)
	_, _, err = list(page(`"../../etc"`, ""))
	assert.ErrorIs(t, err, meshclient.ErrBadAnswer, "what is no id")
}

func TestAWorkflowFilterHasSixForms(t *testing.T) {
	s := serve(t, meshtest.Options{})
	b := connect(t, s, bob)
	for _, w := range []string{"AB", "ABC", "XAB", "XY &Z"} {
		s.Deliver(&meshtest.Message{From: alice, To: bob, WorkflowID: w, Chunks: [][]byte{{1}}})
	}
	for filter, n := range map[string]int{"AB": 1, "!AB": 3, "AB*": 2, "!AB*": 2, "*AB*": 3, "!*AB*": 1, "XY &Z": 1, "": 4} {
		page, err := b.Inbox(bounded(t), &meshclient.Query{WorkflowFilter: filter})
		require.NoError(t, err)
		assert.Len(t, page.MessageIDs, n, filter)
	}
	before := len(s.Requests())
	for _, q := range []meshclient.Query{{MaxResults: 9}, {MaxResults: 5001}, {MaxResults: -1}, {WorkflowFilter: "x"}, {WorkflowFilter: strings.Repeat("x", 256)}} {
		_, err := b.Inbox(bounded(t), &q)
		assert.ErrorIs(t, err, meshclient.ErrInvalid)
	}
	assert.Len(t, s.Requests(), before)
}

func TestAHandshakeHasWhatTheServerWantsAndTakesAnyAnswer(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	require.NoError(t, a.Handshake(bounded(t)))
	s.Script(meshtest.Fault{Op: "handshake", Status: 200, Body: `{"mailboxId":"MAILBOX1"}`})
	require.NoError(t, a.Handshake(bounded(t)))
	require.NoError(t, a.Ping(bounded(t)))
	r := s.Requests()[0]
	assert.Equal(t, http.MethodPost, r.Method)
	assert.Equal(t, "application/vnd.mesh.v2+json", r.Accept)
	assert.NotEmpty(t, r.Header.Get("Mex-Clientversion"))
}

func TestMailboxesAreFoundByOrganisationAndWorkflow(t *testing.T) {
	s := serve(t, meshtest.Options{Workflows: []string{"W/1 %"}})
	a := connect(t, s, alice)
	found, err := a.Lookup(bounded(t), "X26", "W/1 %")
	require.NoError(t, err)
	assert.Equal(t, []meshclient.Endpoint{{Mailbox: alice, Name: "mailbox MAILBOX1"}, {Mailbox: bob, Name: "mailbox MAILBOX2"}}, found)
	found, err = a.SearchWorkflow(bounded(t), "W2")
	require.NoError(t, err)
	assert.Empty(t, found)
	s.Script(meshtest.Fault{Op: "lookup", Status: 200, Body: `{"query_id":"1","results":[{"address":"A","description":"B","endpoint_type":"MESH"}]}`})
	found, err = a.Lookup(bounded(t), "X26", "W1")
	require.NoError(t, err)
	assert.Equal(t, []meshclient.Endpoint{{Mailbox: "A", Name: "B"}}, found)
	for _, f := range []func() error{
		func() error { _, err := a.Lookup(bounded(t), "", "W"); return err },
		func() error { _, err := a.SearchWorkflow(bounded(t), ""); return err },
		func() error { _, err := a.Track(bounded(t), ""); return err },
		func() error { _, err := a.TrackLocal(bounded(t), ""); return err },
		func() error { _, err := a.Head(bounded(t), ""); return err },
		func() error { return a.Acknowledge(bounded(t), "") },
		func() error { _, err := receive(t, a, "", nil); return err },
	} {
		assert.ErrorIs(t, f(), meshclient.ErrInvalid)
	}
}

func TestAnIdIsNeverAWayToAnotherPath(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	for _, id := range []string{"..", ".", "../../MAILBOX2/inbox/x", "a?b", "a#b", "a%2Fb", "a b"} {
		_, err := a.Head(bounded(t), id)
		assert.ErrorIs(t, err, meshclient.ErrNotFound, id)
	}
	for _, r := range s.Requests() {
		assert.Equal(t, "head", r.Op)
		assert.Equal(t, alice, r.Mailbox)
	}
}

func TestTrackingReadsEveryFormOfTimeAndStatus(t *testing.T) {
	s := serve(t, meshtest.Options{})
	a := connect(t, s, alice)
	want := time.Date(2020, 6, 6, 12, 21, 53, 0, time.UTC)
	for raw, at := range map[string]time.Time{
		"20200606122153": want, "2020-06-06T12:21:53": want, "2020-06-06T12:21:53.131546": want.Add(131546 * time.Microsecond),
		"2020-06-06T12:21:53Z": want, "soon": {}, "": {},
	} {
		s.Script(meshtest.Fault{Op: "track", Status: 200, Body: fmt.Sprintf(`{"message_id":"M","status":"Frozen","status_code":12,"status_success":true,"upload_timestamp":%q,"expiry_time":null}`, raw)})
		track, err := a.Track(bounded(t), "M")
		require.NoError(t, err)
		assert.Equal(t, at, track.Uploaded.Time)
		assert.Equal(t, raw, track.Uploaded.Raw)
		assert.Equal(t, meshclient.Status("frozen"), track.Status)
		assert.Equal(t, "12", track.Code)
		assert.True(t, track.Success)
		assert.True(t, track.Expires.IsZero())
	}
	m := message([]byte("x"))
	m.LocalID = "twice"
	for range 2 {
		_, err := a.Send(bounded(t), m)
		require.NoError(t, err)
	}
	_, err := a.TrackLocal(bounded(t), "twice")
	assert.ErrorIs(t, err, meshclient.ErrNotUnique)
	s.Script(meshtest.Fault{Op: "track", Status: 200, Body: "{}"}, meshtest.Fault{Op: "track", Status: 200, Body: "<html>"})
	for range 2 {
		_, err = a.Track(bounded(t), "M")
		assert.ErrorIs(t, err, meshclient.ErrBadAnswer)
	}
}
