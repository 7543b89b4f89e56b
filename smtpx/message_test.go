package smtpx_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/smtpx"
)

// part is a leaf of a message.
type part struct {
	kind, charset, disposition, name, id string
	content                              []byte
}

// parse reads a message with the standard library.
func parse(t testing.TB, text string) (mail.Header, []part) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	require.NoError(t, err)
	return m.Header, leaves(t, m.Header.Get, m.Body)
}

func leaves(t testing.TB, header func(string) string, body io.Reader) []part {
	t.Helper()
	kind, params, err := mime.ParseMediaType(header("Content-Type"))
	require.NoError(t, err)
	if strings.HasPrefix(kind, "multipart/") {
		var all []part
		for mr := multipart.NewReader(body, params["boundary"]); ; {
			p, err := mr.NextRawPart()
			if err == io.EOF {
				return all
			}
			require.NoError(t, err)
			all = append(all, leaves(t, p.Header.Get, p)...)
		}
	}
	switch header("Content-Transfer-Encoding") {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	content, err := io.ReadAll(body)
	require.NoError(t, err)
	p := part{kind: kind, charset: params["charset"], id: strings.Trim(header("Content-ID"), "<>"), content: content}
	if d := header("Content-Disposition"); d != "" {
		disposition, params, err := mime.ParseMediaType(d)
		require.NoError(t, err)
		p.disposition, p.name = disposition, params["filename"]
	}
	return []part{p}
}

// arrives sends m and returns what came.
func arrives(t *testing.T, m *smtpx.Message) (mail.Header, []part) {
	t.Helper()
	var header mail.Header
	var parts []part
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		_, err := p.inMemory(t, "none", nil).Send(t.Context(), m)
		require.NoError(t, err)
		require.Len(t, p.taken(), 1)
		header, parts = parse(t, p.taken()[0].data)
	})
	return header, parts
}

func decoded(t *testing.T, header mail.Header, name string) string {
	t.Helper()
	text, err := new(mime.WordDecoder).DecodeHeader(header.Get(name))
	require.NoError(t, err)
	return text
}

// hard are texts that something on the way could change.
var hard = []string{
	"plain", "", ".", "..", ".\n.\n..\n", "Grüße aus Köln", "日本語", "a=b=3D", "tab\tand trailing space ", "=?utf-8?q?x?=",
	strings.Repeat("long line ", 300), strings.Repeat("x", 5000), "ends\n", "a\n\n\nb", "From here\n>From there", "\u00a0\u2028", "--boundary--\n--",
}

func TestWhatArrivesIsWhatWasSent(t *testing.T) {
	blob := make([]byte, 70_000)
	for i := range blob {
		blob[i] = byte(i * 7)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "from disk.bin")
	require.NoError(t, os.WriteFile(path, blob, 0o600))
	for _, text := range hard {
		m := &smtpx.Message{
			From: "Dr. Jörg Müller <j.mueller@example.org>", To: []string{"A B <a@example.org>", "b@example.org"}, Cc: []string{`"Last, First" <c@example.org>`},
			Bcc: []string{"hidden@example.org"}, ReplyTo: []string{"Reply <r@example.org>"}, EnvelopeFrom: "bounce@example.org",
			Subject: strings.NewReplacer("\n", " ", "\t", " ").Replace(text), Text: text, HTML: "<p>" + text + "</p>",
			Headers: map[string]string{"X-Value": "Wert ü " + strings.Repeat("word ", 60) + "end", "List-Unsubscribe": "<mailto:u@example.org>"},
			Attachments: []smtpx.Attachment{
				{Name: "a.bin", Data: blob},
				{Path: path},
				{Name: "empty.txt", Data: []byte{}},
				{Name: "s.dcm", ContentType: "application/dicom", Open: smtpx.Stream(bytes.NewReader(blob))},
				{Name: "logo.png", ContentID: "logo@example.org", Data: []byte("\x89PNG\r\n\x1a\n")},
			},
			ID: "unique@example.org", Date: time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600)), Importance: smtpx.ImportanceHigh,
		}
		header, parts := arrives(t, m)
		assert.Equal(t, m.Subject, decoded(t, header, "Subject"))
		assert.Equal(t, m.Headers["X-Value"], decoded(t, header, "X-Value"))
		assert.Equal(t, "<mailto:u@example.org>", header.Get("List-Unsubscribe"))
		assert.Equal(t, "<unique@example.org>", header.Get("Message-Id"))
		assert.Equal(t, "high", header.Get("Importance"))
		assert.Empty(t, header.Get("Bcc"))
		assert.Empty(t, header.Get("User-Agent")+header.Get("X-Mailer"), "nobody learns what sent it")
		date, err := header.Date()
		require.NoError(t, err)
		assert.True(t, date.Equal(m.Date))
		for name, want := range map[string][]string{
			"From": {m.From}, "To": m.To, "Cc": m.Cc, "Reply-To": m.ReplyTo,
		} {
			got, err := header.AddressList(name)
			require.NoError(t, err)
			require.Len(t, got, len(want))
			for i, text := range want {
				parsed, _ := mail.ParseAddress(text)
				assert.Equal(t, parsed, got[i])
			}
		}
		wired := strings.ReplaceAll(text, "\n", "\r\n")
		var bodies, files []part
		for _, p := range parts {
			if p.disposition == "" {
				bodies = append(bodies, p)
			} else {
				files = append(files, p)
			}
		}
		if text != "" {
			require.Len(t, bodies, 2)
			assert.Equal(t, "text/plain", bodies[0].kind)
			assert.Equal(t, wired, string(bodies[0].content))
		}
		last := bodies[len(bodies)-1]
		assert.Equal(t, "text/html", last.kind)
		assert.Equal(t, "UTF-8", last.charset)
		assert.Equal(t, "<p>"+wired+"</p>", string(last.content))
		byName := map[string]part{}
		for _, p := range files {
			byName[p.name] = p
		}
		for _, name := range []string{"a.bin", "from disk.bin", "s.dcm"} {
			assert.Equal(t, blob, byName[name].content, name)
			assert.Equal(t, "attachment", byName[name].disposition)
		}
		assert.Equal(t, "application/dicom", byName["s.dcm"].kind)
		assert.Empty(t, byName["empty.txt"].content)
		assert.Equal(t, part{kind: "image/png", disposition: "inline", name: "logo.png", id: "logo@example.org", content: []byte("\x89PNG\r\n\x1a\n")}, byName["logo.png"])
	}
}

func TestLineEndsOfAnyKindArriveAsLineEnds(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb": "a\r\nb", "a\rb": "a\r\nb", "a\r\nb": "a\r\nb", "\r": "\r\n", "a\n.\nRCPT TO:<evil@example.com>": "a\r\n.\r\nRCPT TO:<evil@example.com>",
		"a\r.\rb": "a\r\n.\r\nb", "\n.\r\n": "\r\n.\r\n",
	} {
		_, parts := arrives(t, &smtpx.Message{From: "a@example.org", To: []string{"b@example.org"}, Text: in})
		require.Len(t, parts, 1)
		// A mail ends with a line end, whatever its text does.
		assert.Equal(t, strings.TrimSuffix(want, "\r\n")+"\r\n", string(parts[0].content), "%q", in)
	}
}

func TestEveryShapeOfMessage(t *testing.T) {
	file := smtpx.Attachment{Name: "a.txt", Data: []byte("x")}
	image := smtpx.Attachment{Name: "i.png", Data: []byte("y"), ContentID: "i"}
	for name, tt := range map[string]struct {
		m    smtpx.Message
		want []string
	}{
		"nothing":              {smtpx.Message{}, []string{"text/plain"}},
		"text":                 {smtpx.Message{Text: "t"}, []string{"text/plain"}},
		"html":                 {smtpx.Message{HTML: "h"}, []string{"text/html"}},
		"both":                 {smtpx.Message{Text: "t", HTML: "h"}, []string{"text/plain", "text/html"}},
		"one file":             {smtpx.Message{Attachments: []smtpx.Attachment{file}}, []string{"text/plain", "text/plain"}},
		"two files":            {smtpx.Message{Attachments: []smtpx.Attachment{file, file}}, []string{"text/plain", "text/plain", "text/plain"}},
		"text and file":        {smtpx.Message{Text: "t", Attachments: []smtpx.Attachment{file}}, []string{"text/plain", "text/plain"}},
		"html and image":       {smtpx.Message{HTML: "h", Attachments: []smtpx.Attachment{image}}, []string{"text/html", "image/png"}},
		"both, image and file": {smtpx.Message{Text: "t", HTML: "h", Attachments: []smtpx.Attachment{image, file}}, []string{"text/plain", "text/html", "image/png", "text/plain"}},
		"image and file":       {smtpx.Message{Attachments: []smtpx.Attachment{image, file}}, []string{"text/plain", "image/png", "text/plain"}},
	} {
		tt.m.From, tt.m.To = "a@example.org", []string{"b@example.org"}
		_, parts := arrives(t, &tt.m)
		var kinds []string
		for _, p := range parts {
			kinds = append(kinds, p.kind)
		}
		assert.Equal(t, tt.want, kinds, name)
	}
}

func TestTheCharacterSetIsWhatItSays(t *testing.T) {
	m := &smtpx.Message{From: "a@example.org", To: []string{"b@example.org"}, Text: "Grüße", Charset: "ISO-8859-1"}
	_, parts := arrives(t, m)
	assert.Equal(t, "ISO-8859-1", parts[0].charset)
	assert.Equal(t, "Gr\xfc\xdfe\r\n", string(parts[0].content))
	for charset, text := range map[string]string{"ISO-8859-1": "日本", "US-ASCII": "ü", "UTF-8": "\xff", "KOI8-R": "a"} {
		m := &smtpx.Message{From: "a@example.org", To: []string{"b@example.org"}, Text: text, Charset: charset}
		_, err := (&smtpx.Sender{Host: "x.invalid", Encryption: "tls"}).Send(t.Context(), m)
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome, charset)
		assert.False(t, failure(t, err).Retryable())
	}
}

func TestAnAttachmentThatCannotBeReadStopsTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		s := p.inMemory(t, "none", nil)
		for name, a := range map[string]smtpx.Attachment{
			"no file": {Path: "/does/not/exist/" + secretBody}, "none": {Name: "x"}, "two": {Data: []byte{}, Path: "x"},
			"reader": {Name: "x", Open: smtpx.Stream(io.MultiReader(strings.NewReader("abc"), failing{}))},
			"type":   {Name: "x", Data: []byte{}, ContentType: "multipart/mixed; boundary=x"},
		} {
			m := note("a@example.org")
			m.Attachments = []smtpx.Attachment{a, {Name: "b", Data: []byte("b")}}
			_, err := s.Send(t.Context(), m)
			require.Error(t, err, name)
			assert.ErrorContains(t, err, "Attachments[0]", name)
			assert.False(t, failure(t, err).Retryable())
		}
		assert.Zero(t, p.connections())
		// A reader that cannot go back is not sent empty the second time.
		m := note("a@example.org")
		m.Attachments = []smtpx.Attachment{{Name: "x", Open: smtpx.Stream(io.MultiReader(strings.NewReader("abc")))}}
		_, err := s.Send(t.Context(), m)
		require.NoError(t, err)
		_, err = s.Send(t.Context(), m)
		require.ErrorContains(t, err, "was read by an earlier Send")
		// One that can, is.
		m.Attachments[0].Open = smtpx.Stream(strings.NewReader("abc"))
		for range 2 {
			_, err = s.Send(t.Context(), m)
			require.NoError(t, err)
		}
		mails := p.taken()
		assert.Equal(t, strings.Count(mails[1].data, "YWJj"), strings.Count(mails[2].data, "YWJj"))
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestALargeMessageLeavesNoFileBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{ext: []string{"PIPELINING"}}
		s := p.inMemory(t, "none", nil)
		s.SpoolDir = t.TempDir()
		content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
		m := note("a@example.org")
		m.Attachments = []smtpx.Attachment{{Name: "x", Data: content}}
		_, err := s.Send(t.Context(), m)
		require.NoError(t, err)
		_, parts := parse(t, p.taken()[0].data)
		assert.True(t, bytes.Equal(content, parts[1].content))
		left, err := os.ReadDir(s.SpoolDir)
		require.NoError(t, err)
		assert.Empty(t, left)
		s.SpoolDir = "/does/not/exist"
		_, err = s.Send(t.Context(), m)
		require.ErrorContains(t, err, "temporary file")
	})
}
