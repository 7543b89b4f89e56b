package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// withKeys is good with other lines in place of transmissionMode in the source, the
// tenth, and of responseTimeout in the destination, the sixteenth if those of the
// source are one.
func withKeys(source, destination string) string {
	lines := func(indent, text string) string { return strings.ReplaceAll(text, "\n", "\n"+indent) }
	return strings.NewReplacer(
		"transmissionMode: MLLP", lines("      ", source),
		"responseTimeout: 5s", lines("        ", destination),
	).Replace(good)
}

func TestEveryMistakeInATCPConnectorGivesOneLine(t *testing.T) {
	t.Parallel()
	const ok = "serverMode: SERVER"
	for _, tt := range []struct {
		name                string
		source, destination string // keys, one a line
		line                int
		key                 string // in the channel's source or in its first destination
		text                string
	}{
		{"unknown mode", "transmissionMode: " + marker, "", 10, "transmissionMode", "one of MLLP, MLLPv2, FRAME, RAW"},
		{"unknown mode of a destination", ok, "transmissionMode: mllp", 16, "transmissionMode", "one of MLLP, MLLPv2, FRAME, RAW"},
		{"bytes that are none", "transmissionMode: FRAME\nendOfMessageBytes: " + marker, "", 11, "endOfMessageBytes", "in hexadecimal, such as 0B or 1C0D"},
		{"FRAME without an end", "transmissionMode: FRAME\nstartOfMessageBytes: 0B", "", 6, "endOfMessageBytes", "is missing: FRAME needs the bytes that end"},
		{"FRAME whose end holds its start", "transmissionMode: FRAME\nstartOfMessageBytes: 0B\nendOfMessageBytes: 0B0D", "", 12, "endOfMessageBytes", "would look like its start"},
		{"other bytes with MLLP", "startOfMessageBytes: 02", "", 10, "startOfMessageBytes", "write transmissionMode: FRAME"},
		{"bytes with RAW", "transmissionMode: RAW\ndelimiter: newline\nendOfMessageBytes: 0D", "", 12, "endOfMessageBytes", "no frame"},
		{"RAW without a delimiter", "transmissionMode: RAW", "", 6, "delimiter", "is missing: say what ends a RAW message"},
		{"unknown delimiter", "transmissionMode: RAW\ndelimiter: " + marker, "", 11, "delimiter", "one of eof, idle, length, newline"},
		{"delimiter without RAW", "delimiter: eof", "", 10, "delimiter", "only with transmissionMode: RAW"},
		{"silence that ends nothing", "transmissionMode: RAW\ndelimiter: newline\nidle: 1s", "", 12, "idle", "only with delimiter: idle or length"},
		{"no length", "transmissionMode: RAW\ndelimiter: length", "", 6, "length", "is missing or not positive"},
		{"length without its delimiter", "transmissionMode: RAW\ndelimiter: idle\nlength: 80", "", 12, "length", "only with delimiter: length"},
		{"length of more than a message", "transmissionMode: RAW\ndelimiter: length\nlength: 80\nmaxMessageSize: 79", "", 12, "length", "more than maxMessageSize"},
		{"kept open to its end", "transmissionMode: RAW\ndelimiter: eof\nkeepConnectionOpen: true", "", 12, "keepConnectionOpen", "ends with its connection"},
		{"unverified end that ends nothing", "transmissionMode: RAW\ndelimiter: newline\nallowUnverifiedEnd: true", "", 12, "allowUnverifiedEnd", "remove it"},
		{"commits without MLLPv2", "commitTimeout: 1s", "", 10, "commitTimeout", "only with transmissionMode: MLLPv2"},
		{"retries without MLLPv2", ok, "maxRetries: 2", 16, "maxRetries", "only with transmissionMode: MLLPv2"},
		{"negative time for commits", "transmissionMode: MLLPv2\ncommitTimeout: -1s", "", 11, "commitTimeout", "between nothing and"},
		{"enhanced mode with MLLPv2", "transmissionMode: MLLPv2\nenhancedAcknowledgement: true", "", 11, "enhancedAcknowledgement", "commits and a memory of answers"},
		{"batches taken apart with MLLPv2", "transmissionMode: MLLPv2\nbatches: last", "", 11, "batches", "reject or deliver with MLLPv2"},
		{"memory of answers with MLLPv2", "transmissionMode: MLLPv2\nreplay: {}", "", 11, "replay", "commits and a memory of answers"},

		{"character set that nobody knows", "charsetEncoding: " + marker, "", 10, "charsetEncoding", "is not a character set"},
		{"Mirth's default character set", "charsetEncoding: DEFAULT_ENCODING", "", 10, "charsetEncoding", "for Mirth's DEFAULT_ENCODING remove the key"},
		{"character set that cannot be converted", ok, "charsetEncoding: BIG-5", 16, "charsetEncoding", "cannot convert"},

		{"unknown server mode", "serverMode: BOTH", "", 10, "serverMode", "one of SERVER, CLIENT"},
		{"remote address of a listener", "remoteAddress: ward.example.org", "", 10, "remoteAddress", "only serverMode: CLIENT"},
		{"too many connections", "maxConnections: 1000001", "", 10, "maxConnections", "at most 1000000 connections"},
		{"negative connections of a host", "maxConnectionsPerHost: -1", "", 10, "maxConnectionsPerHost", "must not be negative"},
		{"seconds that would be milliseconds", "receiveTimeout: 30", "", 10, "receiveTimeout", "might be meant as seconds"},
		{"negative silence", "receiveTimeout: -1s", "", 10, "receiveTimeout", "between nothing and"},
		{"number for a time that Mirth does not have", ok, "enhancedAcknowledgement: true\napplicationTimeout: 5000", 17, "applicationTimeout", "write a duration such as 10s"},
		{"message of more than the store keeps", "maxMessageSize: 999999999", "", 10, "maxMessageSize", "at most 134217728 bytes"},
		{"unknown word for batches", "batches: split", "", 10, "batches", "one of reject, deliver, per-message, batch, last"},

		{"answer of a destination", "responseMode: " + marker, "", 10, "responseMode", "must be AUTO"},
		{"memory of answers that are not given", "responseMode: NONE\nreplay: {}", "", 11, "replay", "nothing is answered"},
		{"answer to store errors that is not given", "responseMode: NONE\nonStoreError: AE", "", 11, "onStoreError", "nothing is answered"},
		{"condition without enhanced mode", "missingCondition: AL", "", 10, "missingCondition", "only with enhancedAcknowledgement"},
		{"condition that is not in table 0155", "enhancedAcknowledgement: true\nmissingCondition: always", "", 11, "missingCondition", "one of AL, NE, ER, SU"},
		{"condition of a destination without enhanced mode", ok, "missingCondition: AL", 16, "missingCondition", "only with enhancedAcknowledgement"},
		{"enhanced mode without answers", "responseMode: NONE\nenhancedAcknowledgement: true", "", 11, "enhancedAcknowledgement", "nothing is answered"},
		{"commits that are not given", "transmissionMode: MLLPv2\nresponseMode: NONE", "", 11, "responseMode", "contradicts MLLPv2"},
		{"unknown number for new connections", "respondOnNewConnection: 3", "", 10, "respondOnNewConnection", "must be 0"},
		{"new connection to nobody", "respondOnNewConnection: 1\nresponsePort: 7001", "", 6, "responseAddress", "never to that of whoever has connected"},
		{"new connection to no port", "respondOnNewConnection: 2\nresponseAddress: ward.example.org\nresponsePort: 0", "", 12, "responsePort", "1 to 65535"},
		{"address that nothing goes to", "responseAddress: ward.example.org", "", 10, "responseAddress", "only with respondOnNewConnection: 1 or 2"},

		{"answers elsewhere that have no end", "transmissionMode: RAW\ndelimiter: length\nlength: 80\nrespondOnNewConnection: 1\nresponseAddress: ward\nresponsePort: 7001", "", 13, "respondOnNewConnection", "a length of its own"},

		{"range that is none", "allow: [10.1.0.0/16, " + marker + "]", "", 10, "allow[1]", "neither an address nor a range"},
		{"range with bits behind its length", "deny: [10.1.0.7/16]", "", 10, "deny[0]", "no bits set behind its length"},
		{"rules without certificates", "senders: [{commonName: x, applications: ['*'], facilities: ['*']}]", "", 10, "senders", "requireClientCert"},
		{"certificates looked at again without any", "recheckClients: true", "", 10, "recheckClients", "requireClientCert"},
		{"side by side without a key", "parallel: 8", "", 10, "parallel", "needs orderKey"},
		{"key of one after the other", "orderKey: PID-3.1", "", 10, "orderKey", "only with parallel"},
		{"key that is none", "orderKey: patient\nparallel: 8", "", 10, "orderKey", "such as PID-3.1"},
		{"too many side by side", "orderKey: PID-3.1\nparallel: 257", "", 11, "parallel", "between 2 and 256"},
		{"side by side on connections of one message", "keepConnectionOpen: false\norderKey: PID-3.1\nparallel: 8", "", 12, "parallel", "carries one message"},
		{"unknown word for duplicates", "replay: {duplicateControlId: accept}", "", 10, "replay.duplicateControlId", "one of reject, error, deliver"},
		{"memory for ever", "replay: {maxAge: 9000h}", "", 10, "replay.maxAge", "between nothing and"},
		{"quarantine nowhere", "quarantine: {bytes: 100}", "", 10, "quarantine.directory", "is missing"},
		{"quarantine among messages", "quarantine: {directory: ./archive}", "", 20, "", "the same as"},

		{"address of another machine", ok, "localAddress: " + marker, 16, "localAddress", "is not an IP address"},
		{"port that is none", ok, "localPort: 0", 16, "localPort", "1 to 65535"},
		{"connection kept and not kept", ok, "keepConnectionOpen: false\nsendTimeout: 5000", 17, "sendTimeout", "none is kept"},
		{"time for a response that is ignored", ok, "ignoreResponse: true\nresponseTimeout: 5000", 17, "responseTimeout", "no answer is waited for"},
		{"queue for a response that is ignored", ok, "queueOnResponseTimeout: true\nignoreResponse: true", 16, "queueOnResponseTimeout", "no answer is waited for"},
		{"commit that is ignored", ok, "transmissionMode: MLLPv2\nignoreResponse: true", 17, "ignoreResponse", "contradicts MLLPv2"},
		{"enhanced mode to release 2", ok, "transmissionMode: MLLPv2\nenhancedAcknowledgement: true", 17, "enhancedAcknowledgement", "commits are an acknowledgement"},
		{"time for a second answer that is not waited for", ok, "applicationTimeout: 5s", 16, "applicationTimeout", "only with enhancedAcknowledgement"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			destination := tt.destination
			if destination == "" {
				destination = "responseTimeout: 5000"
			}
			_, _, err := load(t, withKeys(tt.source, destination), nil)
			var problems config.LineErrors
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1, "%v", err)
			assert.Equal(t, tt.line, problems[0].Line, "%v", err)
			assert.True(t, strings.HasSuffix(problems[0].Key, "."+tt.key) || tt.key == "", "%v", err)
			assert.Contains(t, problems[0].Text, tt.text)
			assert.NotContains(t, err.Error(), marker, "a value is shown")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestEveryMistakeInASourceThatConnectsGivesOneLine(t *testing.T) {
	t.Parallel()
	const source = "{type: tcp, host: 127.0.0.1, port: 6663}"
	for name, tt := range map[string]struct{ source, key, text string }{
		"nobody to connect to":  {"{type: tcp, serverMode: CLIENT, remotePort: 7001}", "remoteAddress", "is missing"},
		"no port to connect to": {"{type: tcp, serverMode: CLIENT, remoteAddress: ward}", "remotePort", "is missing"},
		"a port to listen on":   {"{type: tcp, serverMode: CLIENT, remoteAddress: ward, remotePort: 7001, port: 6661}", "port", "nothing listens"},
		"connections of others": {"{type: tcp, serverMode: CLIENT, remoteAddress: ward, remotePort: 7001, maxConnections: 10}", "maxConnections", "nobody connects"},
		"addresses of others":   {"{type: tcp, serverMode: CLIENT, remoteAddress: ward, remotePort: 7001, allow: [10.0.0.0/8]}", "allow", "nobody connects"},
		"TLS of a listener":     {"{type: tcp, serverMode: CLIENT, remoteAddress: ward, remotePort: 7001, tls: {enabled: true, requireClientCert: true}}", "tls.requireClientCert", "remove it"},
		"an end that nobody can verify": {
			"{type: tcp, serverMode: CLIENT, remoteAddress: ward, remotePort: 7001, transmissionMode: RAW, delimiter: idle, tls: {enabled: true, trustSystemRoots: true}}",
			"delimiter", "whether such a message is whole",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := load(t, strings.Replace(good, source, tt.source, 1), nil)
			var problems config.LineErrors
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1, "%v", err)
			assert.Equal(t, 25, problems[0].Line)
			assert.Equal(t, "channels[1].source."+tt.key, problems[0].Key)
			assert.Contains(t, problems[0].Text, tt.text)
		})
	}
	_, _, err := load(t, strings.Replace(good, source, "{type: tcp, serverMode: CLIENT, remoteAddress: ward, remotePort: 6661}", 1), nil)
	require.NoError(t, err, "the port of another machine is nobody's here")
}

func TestRulesForSendersAreReadWithTheirMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := testpki.NewCA(t, "Test CA")
	ca.Write(dir, "ca.crt")
	ca.Server().Write(dir, "server")
	path := filepath.Join(dir, "engine.yaml")
	read := func(rule string) (*config.Config, error) {
		text := strings.Replace(good, "transmissionMode: MLLP",
			"recheckClients: true\n      senders: ["+rule+"]\n      tls: {enabled: true, keyStorePath: server.key, certStorePath: server.crt, trustStorePath: ca.crt, requireClientCert: true}", 1)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return config.Load(path, environment(nil))
	}
	cfg, err := read("{dnsName: ward7.example.org, applications: [HIS], facilities: ['*']}")
	require.NoError(t, err)
	assert.Equal(t, []mllp.SenderRule{{DNSName: "ward7.example.org", Applications: []string{"HIS"}, Facilities: []string{"*"}}}, cfg.Channels[0].Source.TCP.Senders)
	assert.True(t, cfg.Channels[0].Source.TCP.RecheckClients)
	for rule, want := range map[string]string{
		"{applications: [HIS], facilities: [WARD]}":                             "senders[0]: is for no certificate",
		"{commonName: x, facilities: [WARD]}":                                   "senders[0].applications: is missing",
		"{commonName: x, applications: [HIS], facilities: ['']}":                "senders[0].facilities: is missing or has an empty entry",
		"{spki: " + marker + ", applications: ['*'], facilities: ['*']}":        "senders[0].spki: is not sha256/",
		"{commonname: x, applications: ['*'], facilities: ['*']}":               "senders[0].commonname: not a key here; did you mean commonName?",
		"{commonName: x, applications: HIS, facilities: ['*']}":                 "senders[0].applications: must be a list",
		"{spki: sha256/AAAA, applications: ['*'], facilities: [" + "'*'" + "]}": "senders[0].spki: is not sha256/",
	} {
		_, err := read(rule)
		var problems config.LineErrors
		require.ErrorAs(t, err, &problems, rule)
		require.Len(t, problems, 1, "%v", err)
		assert.Equal(t, 11, problems[0].Line)
		assert.Contains(t, err.Error(), want)
		assert.NotContains(t, err.Error(), marker)
	}
}

func TestDurationsOfMirthAreMilliseconds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"5000": 5 * time.Second, `"5000"`: 5 * time.Second, "5s": 5 * time.Second, "100ms": 100 * time.Millisecond, "0": 0} {
		cfg, _, err := load(t, withKeys("receiveTimeout: "+text, "sendTimeout: "+text), nil)
		require.NoError(t, err, text)
		assert.Equal(t, want, cfg.Channels[0].Source.TCP.ReceiveTimeout, text)
		assert.Equal(t, want, cfg.Channels[0].Destinations[0].TCP.SendTimeout, text)
	}
}

// What an export of Mirth says of MLLP is what MLLP is, and no mistake.
func TestKeysOfMirthAreTaken(t *testing.T) {
	t.Parallel()
	cfg, _, err := load(t, withKeys(`serverMode: SERVER
transmissionMode: MLLP
startOfMessageBytes: 0B
endOfMessageBytes: 1C0D
maxConnections: '10'
receiveTimeout: '0'
keepConnectionOpen: true
charsetEncoding: UTF-8
responseMode: AUTO
respondOnNewConnection: '0'`, `transmissionMode: FRAME
startOfMessageBytes: '02'
endOfMessageBytes: 03
localAddress: 127.0.0.1
localPort: 7001
keepConnectionOpen: true
sendTimeout: 5000
responseTimeout: '5000'
queueOnResponseTimeout: true
checkRemoteHost: false
ignoreResponse: false
charsetEncoding: ISO-8859-1`), nil)
	require.NoError(t, err)
	source, dest := cfg.Channels[0].Source.TCP, cfg.Channels[0].Destinations[0].TCP
	assert.Equal(t, mllp.CharsetUTF8, source.CharsetEncoding)
	assert.Equal(t, mllp.Framing{Mode: mllp.ModeMLLP, KeepOpen: new(true)}, source.MLLP())
	assert.Equal(t, mllp.Framing{Mode: mllp.ModeFRAME, Start: []byte{2}, End: []byte{3}, KeepOpen: new(true)}, dest.MLLP())
	assert.Equal(t, mllp.CharsetLatin1, dest.CharsetEncoding)
	assert.Equal(t, "127.0.0.1:7001", dest.Dialer().LocalAddr)
}

// The example is a configuration without mistakes and has every key there is, some
// of them behind a # because they exclude others or name files.
func TestTheExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "example.yaml")
	_, err := config.Load(path, environment(nil))
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "tcp.md"))
	require.NoError(t, err)
	second, err := os.ReadFile(filepath.Join("..", "..", "docs", "http-smtp.md"))
	require.NoError(t, err)
	third, err := os.ReadFile(filepath.Join("..", "..", "docs", "dicom.md"))
	require.NoError(t, err)
	for _, of := range []any{
		config.Config{},
		config.User{},
		config.Channel{},
		config.Source{},
		config.TCPSource{},
		config.Framing{},
		config.Replay{},
		config.Quarantine{},
		mllp.SenderRule{},
		config.Destination{},
		config.Queue{},
		config.TCPDestination{},
		config.DICOMSource{},
		config.DICOMSender{},
		config.DICOMDestination{},
		dicomtls.Properties{},
		config.HTTPDestination{},
		config.SMTPDestination{},
		config.Header{},
		config.Attachment{},
		config.FileDestination{},
		config.ChannelDestination{},
	} {
		typ := reflect.TypeOf(of)
		for field := range typ.Fields() {
			key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if key == "" || key == "-" {
				continue
			}
			assert.Regexp(t, regexp.MustCompile(`\b`+key+`:`), string(text), "%v", typ)
			switch of.(type) {
			case config.HTTPDestination, config.SMTPDestination, config.Header, config.Attachment:
				assert.Contains(t, string(second), "`"+key+"`", "%v", typ)
			case config.DICOMSource, config.DICOMSender, config.DICOMDestination, dicomtls.Properties:
				assert.Contains(t, string(third), "`"+key+"`", "%v", typ)
			case config.TCPSource, config.Framing, config.Replay, config.Quarantine, config.TCPDestination:
				assert.Contains(t, string(page), "`"+key+"`", "%v", typ)
			}
		}
	}
}
