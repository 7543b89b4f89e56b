package config_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/smtpx"
)

// withDestination is a configuration of one destination with these keys, one a
// line, of which the first is in line 8.
func withDestination(keys string) string {
	return "channels:\n  - id: a\n    source: {type: tcp, host: 127.0.0.1, port: 1}\n    destinations:\n      - name: out\n        queue: {retryInterval: 1s}\n" +
		"\n        " + strings.ReplaceAll(strings.TrimSpace(keys), "\n", "\n        ") + "\n"
}

const (
	anHTTP = "type: http\nhost: https://lab.example.org/in\n"
	aMail  = "type: smtp\nsmtpHost: smtp.example.org\nencryption: tls\nfrom: a@example.org\n" +
		"to: b@example.org\n"
)

func TestEveryMistakeInAnHTTPOrMailDestinationGivesOneLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, keys string
		line       int
		key, text  string
	}{
		{"HTTP without a URL", "type: http", 5, "host", "is missing: the URL"},
		{"URL of another kind", "type: http\nhost: ftp://lab", 9, "host", "is not a URL to send to"},
		{"URL with a password", "type: http\nhost: https://u:" + marker + "@lab/", 9, "host", "holds credentials"},
		{"URL of the message's making", "type: http\nhost: https://lab/${message.controlId}", 9, "host", "fixed when the engine starts"},
		{"method that is none", anHTTP + "method: PO ST", 10, "method", "is not a method"},
		{"header that is none", anHTTP + "headers: [{name: 'a b', value: x}]", 10, "headers[0].name", "is not a name of a header"},
		{"header of the engine's", anHTTP + "headers: [{name: authorization, value: x}]", 10, "headers[0].name", "made by the engine"},
		{"message in a header", anHTTP + "headers: [{name: X, value: '${message.raw}'}]", 10, "headers[0].value", "more than one line"},
		{"unknown variable", anHTTP + "content: ${message.patient}", 10, "content", "${message.id}, ${message.controlId}"},
		{"content that is no text", anHTTP + "content: 5", 10, "content", "wrong type"},
		{"user without authentication", anHTTP + "username: u", 10, "username", "only with useAuthentication: true"},
		{"authentication without a password", anHTTP + "useAuthentication: true\nusername: u", 5, "password", "is missing"},
		{"unknown authentication", anHTTP + "useAuthentication: true\nusername: u\npassword: p\nauthenticationType: NTLM", 13, "authenticationType", "one of Basic, Digest"},
		{"TLS in the clear", "type: http\nhost: http://lab/\ntls: {enabled: true}", 10, "tls", "https:// host only"},
		{"TLS with a file that is not there", anHTTP + "tls: {enabled: true, trustStorePath: /none/ca.crt}", 10, "tls.trustStorePath", "no such file"},
		{"proxy that is none", anHTTP + "proxyUrl: " + marker, 10, "proxyUrl", "neither http://"},
		{"negative time", anHTTP + "responseTimeout: -1s", 10, "responseTimeout", "between nothing and"},

		{"mail without a server", strings.Replace(aMail, "smtpHost: smtp.example.org\n", "", 1), 5, "smtpHost", "is missing"},
		{"mail without encryption", strings.Replace(aMail, "encryption: tls\n", "", 1), 5, "encryption", "tls for STARTTLS"},
		{"unknown encryption", strings.Replace(aMail, "encryption: tls", "encryption: starttls", 1), 10, "encryption", "one of none, tls, ssl"},
		{"mail from nobody", strings.Replace(aMail, "from: a@example.org\n", "", 1), 5, "from", "is missing"},
		{"mail to nobody", strings.Replace(aMail, "to: b@example.org\n", "", 1), 5, "to", "is missing"},
		{"address that is none", strings.Replace(aMail, "to: b@example.org", "to: "+marker, 1), 5, "", "Message.To[0]"},
		{"port out of range", aMail + "smtpPort: 70000", 13, "smtpPort", "1 to 65535"},
		{"user without authentication in a mail", aMail + "username: u", 13, "username", "only with authentication: true"},
		{"credentials in the clear", strings.Replace(aMail, "tls", "none", 1) + "authentication: true\nusername: u\npassword: " + marker, 5, "", "no credentials without TLS"},
		{"TLS without encryption", strings.Replace(aMail, "tls", "none", 1) + "tls: {enabled: true}", 5, "", "use tls or ssl"},
		{"message in the subject", aMail + "subject: ${message.raw}", 13, "subject", "more than one line"},
		{"header twice", aMail + "headers: [{name: X-A, value: '1'}, {name: x-a, value: '2'}]", 13, "headers[1].name", "is the same as"},
		{"header that has a key", aMail + "headers: [{name: Subject, value: x}]", 5, "", "must not set Subject"},
		{"attachment without a name", aMail + "attachments: [{content: x}]", 13, "attachments[0].name", "is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, path, err := load(t, withDestination(tt.keys), nil)
			require.Error(t, err)
			lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
			require.Len(t, lines, 1, "%v", err)
			key := "channels[0].destinations[0]"
			if tt.key != "" {
				key += "." + tt.key
			}
			assert.Regexp(t, "^"+path+":"+strconv.Itoa(tt.line)+": ", lines[0])
			assert.Contains(t, lines[0], ": "+key+": ")
			assert.Contains(t, lines[0], tt.text)
			assert.NotContains(t, err.Error(), marker, "no value is printed")
		})
	}
}

func TestTheMailOfTheGuideIsUnderstood(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"587", "'587'"} {
		cfg, _, err := load(t, withDestination(strings.Replace(aMail, "smtpHost", "smtpPort: "+port+"\nsmtpHost", 1)+
			"authentication: true\nusername: mirth@example.com\npassword: ${SMTP_PASSWORD}"), map[string]string{"SMTP_PASSWORD": "${NO} $${x}"})
		require.NoError(t, err)
		s := cfg.Channels[0].Destinations[0].SMTP.Sender()
		assert.Equal(t, "smtp.example.org", s.Host)
		assert.Equal(t, 587, s.Port)
		assert.Equal(t, smtpx.EncryptionTLS, s.Encryption)
		assert.Equal(t, "${NO} $${x}", s.Auth.Password, "what a variable holds is not looked at again")
	}
}

func TestWhatAMessageHasIsPutInOnceAndBringsNothingWithIt(t *testing.T) {
	t.Parallel()
	cfg, _, err := load(t, withDestination(strings.Replace(aMail, "to: b@example.org", "to: '${TEAM}, ward-${message.controlId}@example.org'", 1)+`
subject: '${FIXED} ${message.controlId} $${message.id}'
html: true
body: '<b>${message.raw}</b>'
attachments: [{name: '${message.id}.hl7', content: '${message.raw}'}]`), map[string]string{"TEAM": "a@example.org, b@example.org", "FIXED": "${message.raw}"})
	require.NoError(t, err)
	value := func(variable string) (string, error) { return "<" + variable + "> ${message.id}, x@example.org", nil }
	m, err := cfg.Channels[0].Destinations[0].SMTP.Message(config.Values{Text: value, Bytes: value})
	require.NoError(t, err)
	assert.Equal(t, "${message.raw} <controlId> ${message.id}, x@example.org ${message.id}", m.Subject)
	assert.Equal(t, "<b>&lt;raw&gt; ${message.id}, x@example.org</b>", m.HTML)
	assert.Equal(t, []string{"a@example.org", " b@example.org", " ward-<controlId> ${message.id}, x@example.org@example.org"}, m.To, "one address stays one, which is then refused")
	assert.Equal(t, "<raw> ${message.id}, x@example.org", string(m.Attachments[0].Data))
}

func TestAnHTTPDestinationHasDefaults(t *testing.T) {
	t.Parallel()
	cfg, _, err := load(t, withDestination(anHTTP), nil)
	require.NoError(t, err)
	h := cfg.Channels[0].Destinations[0].HTTP
	assert.Equal(t, "POST", h.Method)
	assert.Equal(t, "application/hl7-v2", h.ContentType)
	assert.Equal(t, 30*time.Second, h.ResponseTimeout)
	content, err := h.Content.Expand(func(variable string) (string, error) { return "the " + variable, nil })
	require.NoError(t, err)
	assert.Equal(t, "the raw", content)
}
