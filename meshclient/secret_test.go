package meshclient_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// tape is a log that many may write to.
type tape struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (w *tape) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *tape) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func TestNothingThatIsSaidHoldsASecretOrAPatient(t *testing.T) {
	const (
		password, secret = "planted-password", "planted-hash-secret"
		nhs, name        = "9434765919", "PLANTED-SURNAME"
	)
	to := "GPPROVIDER_" + nhs + "_01011970_" + name
	var log tape
	s := serve(t, meshtest.Options{
		SmallChunks: true, HashSecret: secret,
		Mailboxes: map[string]string{alice: password, bob: password, to: password},
	})
	a := connect(t, s, alice, func(c *meshclient.Config) {
		c.Logger = everything(&log)
		c.Observe = func(e httpsender.Event) { fmt.Fprintf(&log, "%+v %v\n", e, e) }
	})
	quoting := func(status int) meshtest.Fault {
		return meshtest.Fault{
			Status: status, Header: http.Header{"X-Patient": {nhs}},
			Body: `{"detail":[{"event":"` + nhs + `,","code":"` + name + `!","msg":"` + password + secret + `"}]}`,
		}
	}
	send := func() {
		m := chunked([]byte(strings.Repeat(nhs+name, 100)))
		m.To, m.Subject, m.FileName, m.LocalID = to, name, nhs+".csv", nhs
		sent, err := a.Send(bounded(t), m)
		fmt.Fprintf(&log, "%v\n", err)
		if err == nil {
			_, err = a.Track(bounded(t), sent.MessageID)
			fmt.Fprintf(&log, "%v\n", err)
		}
	}
	send()
	require.NotEmpty(t, s.Waiting(to))
	for _, f := range []meshtest.Fault{{Drop: true}, {DropAfter: true}, {Truncate: 3}, quoting(400), quoting(403), quoting(417), quoting(500), quoting(503)} {
		f.Times = 4
		s.Script(f)
		send()
		for _, call := range []func() error{
			func() error { return a.Handshake(bounded(t)) },
			func() error { _, err := a.Inbox(bounded(t), &meshclient.Query{WorkflowFilter: nhs}); return err },
			func() error { _, err := a.Lookup(bounded(t), nhs, name); return err },
			func() error { _, err := a.TrackLocal(bounded(t), nhs); return err },
			func() error { _, err := receive(t, a, nhs, nil); return err },
			func() error { return a.Acknowledge(bounded(t), nhs) },
		} {
			fmt.Fprintf(&log, "%v\n", call())
		}
	}
	text := log.String()
	require.Contains(t, text, "503", "the control: something was said")
	for _, planted := range []string{password, secret, nhs, name, "NHSMESH", "PRIVATE KEY", "/outbox", "/inbox"} {
		assert.NotContains(t, text, planted)
	}
	for _, r := range s.Requests() {
		if token := r.Authorization; token != "" {
			assert.NotContains(t, text, token[strings.LastIndexByte(token, ':')+1:])
		}
	}
}
