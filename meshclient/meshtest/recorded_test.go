package meshtest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// byHand is a client that does what it is told, and makes tokens.
type byHand struct {
	t    *testing.T
	s    *meshtest.Server
	http *http.Transport
}

func newByHand(t *testing.T, o meshtest.Options) *byHand {
	t.Helper()
	s, err := meshtest.New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	conf, err := s.Config("MAILBOX1")
	require.NoError(t, err)
	pair, err := tls.X509KeyPair([]byte(conf.ClientCert), []byte(conf.ClientKey))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(s.CA()))
	c := &byHand{t, s, &http.Transport{
		DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// An answer is what the fake says.
type answer struct {
	status int
	header http.Header
	body   string
}

// keys are those of the body, which must be an object; sorted.
func (a answer) keys(t *testing.T) []string {
	t.Helper()
	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &object), a.body)
	return slices.Sorted(maps.Keys(object))
}

// detail is the first of version 2's details.
func (a answer) detail(t *testing.T) map[string]any {
	t.Helper()
	var body struct {
		Detail []map[string]any `json:"detail"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &body), a.body)
	require.NotEmpty(t, body.Detail, a.body)
	return body.Detail[0]
}

// ask sends a request with a good token, unless h has another. v is the version.
func (c *byHand) ask(v, method, path, body string, h http.Header) answer {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.s.URL+"/messageexchange"+path, strings.NewReader(body))
	require.NoError(c.t, err)
	mailbox, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	mailbox, _, _ = strings.Cut(mailbox, "?")
	r.Header.Set("Authorization", meshclient.Authorization(strings.ToUpper(mailbox), "password", "TestKey", rand.Text(), 0, time.Now()))
	if v != "" {
		r.Header.Set("Accept", "application/vnd.mesh.v"+v+"+json")
	}
	maps.Copy(r.Header, h)
	resp, err := c.http.RoundTrip(r)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func toBob(pairs ...string) http.Header {
	return headers(append([]string{"Mex-To", "MAILBOX2", "Mex-WorkflowID", "W", "Content-Type", "application/octet-stream"}, pairs...)...)
}

// id is that of a message that was just sent.
func (c *byHand) id() string {
	c.t.Helper()
	waiting := c.s.Waiting("MAILBOX2")
	require.NotEmpty(c.t, waiting)
	return waiting[len(waiting)-1]
}

// What NHS's sandbox has been seen to answer, and the specification says, to each
// call in both versions.
func TestAnswersHaveTheFormOfThoseThatWereRecorded(t *testing.T) {
	c := newByHand(t, meshtest.Options{SmallChunks: true})
	os := headers("Mex-ClientVersion", "x", "Mex-OSName", "x", "Mex-OSVersion", "x")

	a := c.ask("2", "POST", "/MAILBOX1", "", os)
	assert.Equal(t, answer{200, a.header, ""}, a)
	assert.Empty(t, a.header.Get("Content-Type"))
	assert.Equal(t, 200, c.ask("2", "GET", "/MAILBOX1", "", os).status)
	assert.Equal(t, []string{"mailboxId"}, c.ask("1", "POST", "/MAILBOX1", "", os).keys(t))
	for name := range os {
		h := os.Clone()
		h.Del(name)
		a := c.ask("2", "POST", "/MAILBOX1", "", h)
		assert.Equal(t, 400, a.status, name)
		assert.Contains(t, a.detail(t), "loc", name)
	}

	a = c.ask("1", "POST", "/MAILBOX1/outbox", "x", toBob("Mex-LocalID", "L1"))
	assert.Equal(t, 202, a.status)
	assert.Equal(t, []string{"messageID"}, a.keys(t))
	first := c.id()
	a = c.ask("2", "POST", "/MAILBOX1/outbox", "one", toBob("Mex-Chunk-Range", "1:3"))
	assert.Equal(t, 202, a.status)
	assert.Equal(t, []string{"message_id"}, a.keys(t))
	assert.Equal(t, "application/json", a.header.Get("Content-Type"))
	var sent struct {
		ID string `json:"message_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &sent))
	outbox, inbox := "/MAILBOX1/outbox/"+sent.ID, "/MAILBOX2/inbox/"+sent.ID
	assert.Equal(t, 410, c.ask("2", "GET", inbox, "", nil).status, "while it is being uploaded")
	for range 2 {
		a = c.ask("2", "POST", outbox+"/2", "two", headers("Mex-Chunk-Range", "2:3"))
		assert.Equal(t, answer{202, a.header, "null"}, a, "again is the same")
	}
	assert.Equal(t, []string{"blockID", "messageID"}, c.ask("1", "POST", outbox+"/3", "three", headers("Mex-Chunk-Range", "3:3")).keys(t))
	a = c.ask("2", "POST", outbox+"/3", "three", headers("Mex-Chunk-Range", "3:3"))
	assert.Equal(t, 423, a.status)
	assert.Equal(t, "Message already accepted", a.detail(t)["code"])

	a = c.ask("1", "GET", "/MAILBOX2/inbox", "", nil)
	assert.JSONEq(t, `{"messages":["`+first+`","`+sent.ID+`"]}`, a.body)
	a = c.ask("2", "GET", "/MAILBOX2/inbox", "", nil)
	assert.Equal(t, []string{"approx_inbox_count", "links", "messages"}, a.keys(t))
	assert.Contains(t, a.header.Get("Content-Type"), "vnd.mesh.v2+json")
	assert.Equal(t, []string{"allResultsIncluded", "count", "internalID"}, c.ask("1", "GET", "/MAILBOX2/count", "", nil).keys(t))
	assert.JSONEq(t, `{"count":2}`, c.ask("2", "GET", "/MAILBOX2/count", "", nil).body)

	for n, want := range map[string]answer{"": {206, nil, "one"}, "/2": {206, nil, "two"}, "/3": {200, nil, "three"}} {
		a := c.ask("2", "GET", inbox+n, "", nil)
		assert.Equal(t, answer{want.status, a.header, want.body}, a, n)
		i := strings.TrimPrefix(n+"1", "/")[:1]
		assert.Equal(t, i+":3", a.header.Get("Mex-Chunk-Range"))
		for name, value := range map[string]string{
			"Mex-From": "MAILBOX1", "Mex-To": "MAILBOX2", "Mex-WorkflowID": "W", "Mex-Total-Chunks": "3", "Mex-AddressType": "ALL", "Mex-Version": "1.0",
			"Mex-MessageType": "DATA", "Mex-MessageID": sent.ID, "Mex-StatusCode": "00", "Mex-StatusEvent": "TRANSFER", "Mex-StatusSuccess": "SUCCESS",
			"Content-Type": "application/octet-stream", "Content-Encoding": "", "Mex-Content-Compressed": "", "Mex-Subject": "",
		} {
			assert.Equal(t, value, a.header.Get(name), name)
		}
		_, err := time.Parse("20060102150405", a.header.Get("Mex-StatusTimestamp"))
		assert.NoError(t, err)
	}
	assert.Equal(t, 406, c.ask("2", "GET", inbox+"/4", "", nil).status)
	head := c.ask("2", "HEAD", inbox, "", nil)
	assert.Empty(t, head.body)
	assert.Equal(t, "1:3", head.header.Get("Mex-Chunk-Range"))
	a = c.ask("2", "GET", inbox+"/3", "", headers("Accept-Encoding", "gzip"))
	assert.Equal(t, "gzip", a.header.Get("Content-Encoding"), "though it was not sent so")
	assert.Equal(t, "Y", a.header.Get("Mex-Content-Compressed"))
	z, err := gzip.NewReader(strings.NewReader(a.body))
	require.NoError(t, err)
	text, err := io.ReadAll(z)
	require.NoError(t, err)
	assert.Equal(t, "three", string(text))

	v2 := []string{
		"expiry_time", "filename", "local_id", "message_id", "recipient", "recipient_name", "recipient_ods_code", "recipient_org_code", "recipient_org_name",
		"status", "status_code", "status_description", "status_event", "status_success", "status_timestamp", "upload_timestamp", "workflow_id",
	}
	a = c.ask("2", "GET", "/MAILBOX1/outbox/tracking?messageID="+first, "", nil)
	assert.Equal(t, v2, a.keys(t))
	var track map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &track))
	assert.Equal(t, "accepted", track["status"])
	assert.Equal(t, true, track["status_success"])
	_, err = time.Parse("2006-01-02T15:04:05.000000", track["upload_timestamp"].(string))
	assert.NoError(t, err)
	a = c.ask("1", "GET", "/MAILBOX1/outbox/tracking/L1", "", nil)
	assert.Contains(t, a.body, `"status":"Accepted"`)
	assert.Equal(t, 404, c.ask("2", "GET", "/MAILBOX2/outbox/tracking?messageID="+first, "", nil).status, "another's")

	for range 2 {
		a = c.ask("2", "PUT", inbox+"/status/acknowledged", "", nil)
		assert.Equal(t, answer{200, a.header, ""}, a)
	}
	assert.Equal(t, []string{"messageId"}, c.ask("1", "PUT", "/MAILBOX2/inbox/"+first+"/status/acknowledged", "", nil).keys(t))
	assert.Equal(t, 404, c.ask("2", "PUT", "/MAILBOX2/inbox/unknown/status/acknowledged", "", nil).status)
	assert.Equal(t, 403, c.ask("2", "PUT", "/MAILBOX1/inbox/"+first+"/status/acknowledged", "", nil).status)

	none := headers("Authorization", "")
	assert.Equal(t, []string{"query_id", "results"}, c.ask("1", "GET", "/endpointlookup/X26/W", "", none).keys(t))
	assert.Contains(t, c.ask("1", "GET", "/endpointlookup/X26/W", "", none).body, `"endpoint_type":"MESH"`)
	for _, path := range []string{"/endpointlookup/X26/W", "/workflowsearch/W"} {
		a := c.ask("2", "GET", path, "", none)
		assert.Equal(t, []string{"results"}, a.keys(t))
		assert.Contains(t, a.body, `"mailbox_id":"MAILBOX1"`)
		assert.Equal(t, "application/json", a.header.Get("Content-Type"))
	}
	a = c.ask("2", "GET", "/_ping", "", none)
	assert.Equal(t, 200, a.status)
	assert.True(t, json.Valid([]byte(a.body)))
}

func TestAReportHasTheFormOfThoseThatWereRecorded(t *testing.T) {
	c := newByHand(t, meshtest.Options{})
	c.ask("2", "POST", "/MAILBOX1/outbox", "x", toBob("Mex-LocalID", "L1", "Mex-Subject", "S"))
	sent := c.id()
	require.True(t, c.s.Undeliverable(sent, "14", "not collected"))
	a := c.ask("2", "GET", "/MAILBOX1/inbox/"+c.s.Waiting("MAILBOX1")[0], "", headers("Accept-Encoding", "gzip"))
	assert.Equal(t, answer{200, a.header, ""}, a)
	for name, value := range map[string]string{
		"Mex-MessageType": "REPORT", "Mex-Chunk-Range": "1:0", "Mex-Total-Chunks": "0", "Mex-To": "MAILBOX1", "Mex-LinkedMsgID": sent,
		"Mex-StatusCode": "14", "Mex-StatusEvent": "SEND", "Mex-StatusDescription": "not collected", "Mex-StatusSuccess": "ERROR",
		"Mex-LocalID": "L1", "Mex-Subject": "S", "Content-Encoding": "",
	} {
		assert.Equal(t, value, a.header.Get(name), name)
	}
	assert.Equal(t, 410, c.ask("2", "GET", "/MAILBOX2/inbox/"+sent, "", nil).status)
}

func TestRefusalsAreThoseThatWereRecorded(t *testing.T) {
	c := newByHand(t, meshtest.Options{SmallChunks: true, Workflows: []string{"W"}})
	for name, row := range map[string]struct {
		h           http.Header
		body        string
		status      int
		code, event string
	}{
		"an unregistered recipient": {toBob("Mex-To", "NOBODY"), "x", 417, "12", "SEND"},
		"a workflow that is not":    {toBob("Mex-WorkflowID", "X"), "x", 417, "17", "SEND"},
		"another's From":            {toBob("Mex-From", "MAILBOX2"), "x", 417, "07", "SEND"},
		"nothing":                   {toBob(), "", 417, "02", "COLLECT"},
		"a tab":                     {toBob("Mex-Subject", "a\tb"), "x", 400, "06", "TRANSFER"},
		"a URL":                     {toBob("Mex-To", "http://x"), "x", 400, "06", "TRANSFER"},
		"base64":                    {toBob("Mex-Content-Checksum", "a+b="), "x", 400, "Invalid checksum", "SEND"},
		"an encoding":               {toBob("Content-Encoding", "br"), "x", 422, "UnsupportedContentEncoding", "SEND"},
		"no chunk range":            {toBob("Mex-Chunk-Range", "one"), "x", 417, "InvalidHeaderChunks", "SEND"},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.ask("2", "POST", "/MAILBOX1/outbox", row.body, row.h)
			assert.Equal(t, row.status, a.status)
			assert.Equal(t, []string{"detail", "internal_id"}, a.keys(t))
			assert.Equal(t, row.code, a.detail(t)["code"])
			assert.Equal(t, row.event, a.detail(t)["event"])
			assert.NotEmpty(t, a.detail(t)["msg"])
			a = c.ask("1", "POST", "/MAILBOX1/outbox", row.body, row.h)
			assert.Equal(t, row.status, a.status)
			assert.Equal(t, []string{"errorCode", "errorDescription", "errorEvent"}, a.keys(t))
		})
	}
	assert.Empty(t, c.s.Waiting("MAILBOX2"))

	// Versions: none, and one that there is not yet.
	assert.Equal(t, 400, c.ask("X", "GET", "/MAILBOX1/inbox", "", nil).status)
	assert.Contains(t, c.ask("9", "GET", "/MAILBOX1/inbox", "", nil).keys(t), "links")
	assert.Equal(t, []string{"messages"}, c.ask("", "GET", "/MAILBOX1/inbox", "", headers("Accept", "application/json")).keys(t))
	assert.Equal(t, []string{"messages"}, c.ask("", "GET", "/MAILBOX1/inbox", "", nil).keys(t))

	// Tokens: the mailbox in it is in upper case, that in the path in any.
	token := func(mailbox, password string) http.Header {
		return headers("Authorization", meshclient.Authorization(mailbox, password, "TestKey", rand.Text(), 0, time.Now()))
	}
	assert.Equal(t, 200, c.ask("2", "GET", "/mailbox1/inbox", "", token("MAILBOX1", "password")).status)
	for name, h := range map[string]http.Header{
		"in lower case": token("mailbox1", "password"), "another's": token("MAILBOX2", "password"), "a password": token("MAILBOX1", "x"), "none": headers("Authorization", ""),
	} {
		a := c.ask("2", "GET", "/MAILBOX1/inbox", "", h)
		assert.Equal(t, 403, a.status, name)
		assert.Equal(t, "", a.detail(t)["code"], name)
		assert.Equal(t, "", a.detail(t)["event"], name)
		assert.NotEmpty(t, a.detail(t)["msg"], name)
	}
	for _, query := range []string{"max_results=9", "max_results=5001", "max_results=x", "continue_from=" + strings.Repeat("x", 24)} {
		a := c.ask("2", "GET", "/MAILBOX1/inbox?"+query, "", nil)
		assert.Equal(t, 400, a.status, query)
		assert.Contains(t, a.detail(t), "type", query)
	}
	assert.Equal(t, 404, c.ask("2", "GET", "/MAILBOX1/inbox/unknown", "", nil).status)

	long := newByHand(t, meshtest.Options{Dir: t.TempDir()})
	a := long.ask("2", "POST", "/MAILBOX1/outbox", string(bytes.Repeat([]byte("x"), 1000)), toBob("Mex-Subject", strings.Repeat("x", 501)))
	assert.Equal(t, 400, a.status)
}
