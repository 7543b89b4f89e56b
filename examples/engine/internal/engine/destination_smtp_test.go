package engine_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// postOffice takes mail. What it answers to a line is 250, or what is next in its
// script for the beginning of the line.
type postOffice struct {
	ln net.Listener

	mu     sync.Mutex
	script map[string][]string // guarded by mu; an empty answer ends the connection
	lines  []string            // commands; guarded by mu
	mails  []string            // guarded by mu
}

func newPostOffice(t *testing.T, script map[string][]string) *postOffice {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &postOffice{ln: ln, script: script}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.serve(nc) })
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return p
}

func (p *postOffice) serve(nc net.Conn) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(nc, "220 post office\r\n")
	r := bufio.NewReader(nc)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		answer := p.answer(strings.TrimSpace(line))
		if answer == "" {
			return
		}
		fmt.Fprint(nc, answer+"\r\n")
		if !strings.HasPrefix(answer, "354") {
			continue
		}
		var content strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == ".\r\n" {
				break
			}
			content.WriteString(strings.TrimPrefix(line, "."))
		}
		p.mu.Lock()
		p.mails = append(p.mails, content.String())
		p.mu.Unlock()
		if answer = p.answer("the end"); answer == "" {
			return
		}
		fmt.Fprint(nc, answer+"\r\n")
	}
}

func (p *postOffice) answer(line string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, line)
	for prefix, answers := range p.script {
		if strings.HasPrefix(line, prefix) && len(answers) > 0 {
			p.script[prefix] = answers[1:]
			if answers[0] == "" {
				return ""
			}
			return answers[0] + " " + planted
		}
	}
	if line == "DATA" {
		return "354 go on"
	}
	return "250 ok"
}

func (p *postOffice) took() (mails, recipients []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.HasPrefix(line, "RCPT") {
			recipients = append(recipients, strings.TrimPrefix(line, "RCPT TO:"))
		}
	}
	return p.mails, recipients
}

// keys are those of a destination that sends to the post office.
func (p *postOffice) keys(more string) string {
	return fmt.Sprintf("type: smtp\nsmtpHost: 127.0.0.1\nsmtpPort: %d\nencryption: none\nfrom: engine@example.org\n", p.ln.Addr().(*net.TCPAddr).Port) + more
}

func TestAMessageIsMailed(t *testing.T) {
	t.Parallel()
	office := newPostOffice(t, nil)
	e := start(t, openStore(t, t.TempDir()), channel("adt", configured(t, office.keys(`
to: ward@example.org, archive@example.org
subject: 'Message ${message.controlId}'
headers: [{name: X-Channel, value: '${message.channelId}'}]
body: '${message.raw}'
attachments: [{name: '${message.controlId}.hl7', mimeType: application/hl7-v2, content: '${message.raw}'}]`))))
	latin := []byte("MSH|^~\\&|HIS|W|E|L|20260101120000||ADT^A01|M1|T|2.5||||||8859/1\rPID|1||||M\xfcller\r")
	_, err := dial(t, e.addr("adt"), nil).Send(t.Context(), latin)
	require.NoError(t, err)
	eventually(t, "the mail is sent", func() bool { return e.stats("adt").Sent == 1 })
	mails, recipients := office.took()
	assert.Equal(t, []string{"<ward@example.org>", "<archive@example.org>"}, recipients)
	require.Len(t, mails, 1)
	m, err := mail.ReadMessage(strings.NewReader(mails[0]))
	require.NoError(t, err)
	assert.Equal(t, "Message M1", m.Header.Get("Subject"))
	assert.Equal(t, "adt", m.Header.Get("X-Channel"))
	text, attached := parts(t, m)
	assert.Contains(t, text, "Müller", "the text is UTF-8")
	assert.Equal(t, string(latin), attached, "the attachment is what came in")
	e.stop()
	assert.NotContains(t, e.log.String(), "ward@example.org")
}

func TestAMailThatSomeHaveGoesAgainToTheOthersAlone(t *testing.T) {
	t.Parallel()
	office := newPostOffice(t, map[string][]string{"RCPT TO:<b@": {"451 4.3.0 later", "451 4.3.0 later"}})
	e := start(t, openStore(t, t.TempDir()), channel("adt", configured(t, office.keys("to: a@example.org, b@example.org\nbody: x"))))
	send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
	eventually(t, "both are sent", func() bool { return e.stats("adt").Sent == 2 })
	mails, recipients := office.took()
	assert.Equal(t, []string{
		"<a@example.org>", "<b@example.org>", "<b@example.org>", "<b@example.org>", // M1
		"<a@example.org>", "<b@example.org>",
	}, recipients)
	var seen []string
	for _, text := range mails {
		m, err := mail.ReadMessage(strings.NewReader(text))
		require.NoError(t, err)
		seen = append(seen, m.Header.Get("Message-Id"))
	}
	require.Len(t, seen, 3)
	assert.Equal(t, seen[0], seen[1], "the tries of one message have one id")
	assert.NotEqual(t, seen[1], seen[2])
}

// Also when others were mailed in between.
func TestASkippedMailGoesToTheOthersAlone(t *testing.T) {
	t.Parallel()
	office := newPostOffice(t, map[string][]string{"RCPT TO:<b@": {"550 5.1.1 no", "550 5.1.1 no", "550 5.1.1 no"}})
	e := start(t, openStore(t, t.TempDir()), channel("adt", configured(t, office.keys("to: a@example.org, b@example.org\nbody: x\nqueue: {maxAttempts: 1, onPoison: skip}"))))
	send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
	eventually(t, "both are sent", func() bool { return e.stats("adt").Sent == 2 })
	_, recipients := office.took()
	to := make(map[string]int)
	for _, r := range recipients {
		to[r]++
	}
	assert.Equal(t, map[string]int{"<a@example.org>": 2, "<b@example.org>": 5}, to, "three of b's are refusals")
}

func TestWhatAMailServerAnswersDecidesWhatBecomesOfAMessage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script    map[string][]string
		dead      int
		maybeSent bool
	}{
		"refused for good":    {map[string][]string{"RCPT": {"550 5.1.1 no"}}, 1, false},
		"content refused":     {map[string][]string{"the end": {"554 5.6.0 no"}}, 1, false},
		"no answer":           {map[string][]string{"the end": {""}}, 1, true},
		"gone before the end": {map[string][]string{"DATA": {""}}, 0, false},
		"not now":             {map[string][]string{"EHLO": {"421 4.3.2 no", "421 4.3.2 no"}}, 0, false},
		"going, later said":   {map[string][]string{"RCPT": {"421 4.3.2 no", "421 4.3.2 no"}}, 0, false},
		"wants credentials":   {map[string][]string{"MAIL": {"530 5.7.0 no", "530 5.7.0 no"}}, 0, false},
		"and says so late":    {map[string][]string{"RCPT": {"530 5.7.0 no", "530 5.7.0 no"}}, 0, false},
		"does not know us":    {map[string][]string{"EHLO": {"550 5.7.1 no"}, "HELO": {"550 5.7.1 no"}}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			office := newPostOffice(t, tt.script)
			st := openStore(t, t.TempDir())
			e := start(t, st, channel("adt", configured(t, office.keys("to: a@example.org\nbody: x\nqueue: {maxAttempts: 1, onPoison: deadletter}"))))
			send(t, dial(t, e.addr("adt"), nil), "M1", "M2")
			eventually(t, "the queue is empty", func() bool { s := e.stats("adt"); return s.Queued == 0 && s.Sent+s.Error == 2 })
			dead, err := st.DeadLetters(t.Context(), "adt", "out", 0, 10)
			require.NoError(t, err)
			assert.Len(t, dead, tt.dead)
			for _, d := range dead {
				assert.Equal(t, "M1", d.Message.ControlID)
				assert.Equal(t, tt.maybeSent, d.MaybeSent)
			}
		})
	}
}

// parts returns the text of a mail and its only attachment.
func parts(t *testing.T, m *mail.Message) (text, attached string) {
	t.Helper()
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	require.NoError(t, err)
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			return text, attached
		}
		require.NoError(t, err)
		content := decoded(t, p.Header.Get("Content-Transfer-Encoding"), p)
		if p.FileName() != "" {
			assert.Equal(t, "M1.hl7", p.FileName())
			attached = content
		} else {
			text = content
		}
	}
}

// decoded returns the content of a part, as far as mime/multipart has not undone
// its encoding.
func decoded(t *testing.T, encoding string, r io.Reader) string {
	t.Helper()
	switch encoding {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	}
	content, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(content)
}
