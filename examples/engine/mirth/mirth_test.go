package mirth_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/mirth"
	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func run(t testing.TB, opts mirth.Options, exports ...string) *mirth.Result {
	t.Helper()
	res, err := try(opts, exports...)
	require.NoError(t, err)
	return res
}

func try(opts mirth.Options, exports ...string) (*mirth.Result, error) {
	var list []mirth.Export
	for _, text := range exports {
		list = append(list, mirth.Export{Name: "export", Data: []byte(text)})
	}
	return mirth.Import(list, opts)
}

// load reads what came out as the engine does, with every variable set.
func load(t testing.TB, dir string, text []byte) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(dir, "engine.yaml")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return config.Load(path, func(string) (string, bool) { return "a-secret-of-tests", true })
}

// whats returns the properties in findings of a severity.
func whats(res *mirth.Result, severity mirth.Severity) (all []string) {
	for _, f := range res.Findings {
		if f.Severity == severity {
			all = append(all, f.What)
		}
	}
	return all
}

func TestAnUntouchedChannelOfEveryTransportLoads(t *testing.T) {
	res := run(t, mirth.Options{},
		channelXML("5ba097b6-56f6-4802-82d6-c7a830a3aaf3", "ADT &amp; more", tcpListener(6661),
			tcpSender("Destination 1", 6662), fileWriter("Destination 2", "/var/archive"), httpSender("FHIR", "https://fhir.example.org/hl7"),
			smtpSender("Mail"), channelWriter("Onward", "reader")),
		`<list>`+channelXML("reader", "Reader", channelReader(), fileWriter("f", "copies"))+
			channelXML("web", "Web", httpListener(8081), tcpSender("lab", 6662))+
			channelXML("images", "Images", dicomListener(11112), dicomSender("PACS"), fileWriter("f", "images"))+`</list>`)

	assert.Empty(t, whats(res, mirth.Lost))
	assert.True(t, res.Complete())
	require.Len(t, res.Channels, 4)
	for _, ch := range res.Channels {
		assert.Equal(t, mirth.Imported, ch.State, ch.Name)
	}
	cfg, err := load(t, t.TempDir(), res.YAML)
	require.NoError(t, err, "%s", res.YAML)
	require.Len(t, cfg.Channels, 4)
	adt := cfg.Channels[0]
	assert.Equal(t, "5ba097b6-56f6-4802-82d6-c7a830a3aaf3", adt.ID)
	assert.Equal(t, "ADT & more", adt.Name)
	assert.Equal(t, 6661, adt.Source.TCP.Port)
	assert.Equal(t, 10, adt.Source.TCP.MaxConnections)
	lab := adt.Destinations[0]
	assert.Equal(t, "Destination-1", lab.Name)
	assert.Equal(t, "127.0.0.1:6662", lab.TCP.Address())
	assert.False(t, lab.TCP.KeepsOpen())
	assert.Equal(t, config.Queue{RetryInterval: 2e9, OnPoison: "deadletter"}, lab.Queue)
	assert.Equal(t, "POST", adt.Destinations[2].HTTP.Method)
	assert.Equal(t, "none", adt.Destinations[2].HTTP.ProxyURL)
	assert.Equal(t, "reader", adt.Destinations[4].Channel.ChannelID)
	assert.Equal(t, "/hl7", cfg.Channels[2].Source.HTTP.ContextPath)
	assert.Equal(t, "PACS", cfg.Channels[3].Destinations[0].DICOM.ApplicationEntity)
}

func TestAPasswordIsInNothingThatComesOut(t *testing.T) {
	res := run(t, mirth.Options{AcceptLosses: true}, channelXML("a", "A", tcpListener(6661), httpSender("FHIR", "https://fhir.example.org/hl7"), smtpSender("Mail")))
	assert.NotContains(t, string(res.YAML), "Xy77Secret")
	assert.Contains(t, string(res.YAML), "${MIRTH_A_FHIR_PASSWORD}")
	for _, f := range res.Findings {
		assert.NotContains(t, f.What+f.Why, "Xy77Secret")
	}
}

// change is an edit of an export, and the finding that it makes.
type change struct {
	from, to string
	what     string
	severity mirth.Severity
	refused  bool // or the destination is gone
}

func TestWhatIsNotCarriedOverIsSaid(t *testing.T) {
	base := channelXML("a", "A", tcpListener(6661), tcpSender("lab", 6662), fileWriter("archive", "archive"))
	filter := `<filter version="4.5.2"><elements><com.mirth.connect.plugins.javascriptrule.JavaScriptRule version="4.5.2"><name>x</name><sequenceNumber>0</sequenceNumber><enabled>true</enabled><script>return false;</script></com.mirth.connect.plugins.javascriptrule.JavaScriptRule></elements></filter>`
	for name, tt := range map[string]change{
		"filter":             {`<filter version="4.5.2"><elements/></filter>`, filter, "filter", mirth.Lost, false},
		"filter that is off": {`<filter version="4.5.2"><elements/></filter>`, strings.Replace(filter, "<enabled>true", "<enabled>false", 1), "filter", mirth.Info, false},
		"transformer": {"<elements/>\n  <inbound", `<elements><com.mirth.connect.plugins.mapper.MapperStep><name>m</name></com.mirth.connect.plugins.mapper.MapperStep></elements>
  <inbound`, "transformer", mirth.Lost, false},
		"conversion":          {"<outboundDataType>HL7V2", "<outboundDataType>XML", "transformer.outboundDataType", mirth.Lost, false},
		"preprocessor":        {"return message;", "return message.replace('a','b');", "preprocessingScript", mirth.Lost, false},
		"deploy script":       {"<deployScript>return;", "<deployScript>globalMap.put('a',1);return;", "deployScript", mirth.Lost, false},
		"attachments":         {"<type>None</type>", "<type>Regex</type>", "attachmentProperties.type", mirth.Lost, false},
		"encryption":          {"<encryptData>false", "<encryptData>true", "encryptData", mirth.Lost, false},
		"batches":             {"<processBatch>false", "<processBatch>true", "sourceConnectorProperties.processBatch", mirth.Lost, false},
		"answer of a script":  {"Auto-generate (After source transformer)", "Postprocessor", "sourceConnectorProperties.responseVariable", mirth.Lost, false},
		"plugin with TLS":     {"<pluginProperties/>", "<pluginProperties><com.mirth.connect.plugins.ssl.SSLProperties><enabled>true</enabled></com.mirth.connect.plugins.ssl.SSLProperties></pluginProperties>", "pluginProperties", mirth.Lost, true},
		"unknown property":    {"<bufferSize>", "<newInSix>yes</newInSix><bufferSize>", "newInSix", mirth.Lost, false},
		"unknown, as default": {"<bufferSize>", "<newInSix>false</newInSix><bufferSize>", "", "", false},
		"template":            {"<template>${message.encodedData}", "<template>${mappedValue}", "template", mirth.Lost, false},
		"binary":              {"<dataTypeBinary>false", "<dataTypeBinary>true", "dataTypeBinary", mirth.Lost, false},
		"character set":       {"DEFAULT_ENCODING", "windows-1252", "charsetEncoding", mirth.Lost, false},
		"variable as a port":  {"<port>6661", "<port>${port}", "listenerConnectorProperties.port", mirth.Lost, true},
		"variable as a host":  {"<remoteAddress>127.0.0.1", "<remoteAddress>${host}", "remoteAddress", mirth.Lost, false},
		"unknown source":      {"TCP Listener", "Database Reader", "transportName", mirth.Lost, true},
		"unknown destination": {"TCP Sender", "JavaScript Writer", "transportName", mirth.Lost, false},
		"FTP":                 {"<scheme>FILE", "<scheme>SFTP", "scheme", mirth.Lost, false},
		"unknown mode":        {"<pluginPointName>MLLP", "<pluginPointName>JavaScript", "transmissionModeProperties.pluginPointName", mirth.Lost, true},
		"one file for all":    {"${message.messageId}.hl7", "all.hl7", "outputAppend", mirth.Lost, false},
		"without a queue":     {"<queueEnabled>true", "<queueEnabled>false", "destinationConnectorProperties.queueEnabled", mirth.Changed, false},
		"threads":             {"<processingThreads>1", "<processingThreads>4", "sourceConnectorProperties.processingThreads", mirth.Changed, false},
		"strict parser":       {"<useStrictParser>false", "<useStrictParser>true", "transformer.inboundProperties.serializationProperties.useStrictParser", mirth.Changed, false},
		"own ACK":             {"<successfulACKCode>AA", "<successfulACKCode>CA", "transformer.inboundProperties.responseGenerationProperties.successfulACKCode", mirth.Changed, false},
		"description":         {"<description>", "<description>the ward's", "description", mirth.Info, false},
		"no TLS":              {"", "", "tls", mirth.Info, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, base, tt.from)
			text := strings.Replace(base, tt.from, tt.to, 1)
			careful := run(t, mirth.Options{}, text)
			if tt.what == "" {
				assert.Empty(t, whats(careful, mirth.Lost))
				return
			}
			assert.Contains(t, whats(careful, tt.severity), tt.what)
			want := mirth.Imported
			if tt.severity == mirth.Lost {
				want = mirth.Held
			} else {
				assert.Empty(t, whats(careful, mirth.Lost))
			}
			accepting := want
			if want == mirth.Held {
				accepting = mirth.Imported
			}
			if tt.refused {
				want, accepting = mirth.Refused, mirth.Refused
			}
			assert.Equal(t, want, careful.Channels[0].State)
			assert.Equal(t, want == mirth.Imported, careful.Complete())
			accepted := run(t, mirth.Options{AcceptLosses: true}, text)
			assert.Equal(t, accepting, accepted.Channels[0].State)
			checkLoads(t, careful)
			checkLoads(t, accepted)
		})
	}
}

// checkLoads checks that the engine takes what was imported, if anything was, and that
// nothing else is in it.
func checkLoads(t testing.TB, res *mirth.Result) {
	t.Helper()
	var want []string
	for _, ch := range res.Channels {
		if ch.State == mirth.Imported {
			want = append(want, ch.ID)
		}
	}
	cfg, err := load(t, t.TempDir(), res.YAML)
	if len(want) == 0 {
		require.Error(t, err, "an engine with nothing but comments must not start")
		return
	}
	require.NoError(t, err, "%s", res.YAML)
	var got []string
	for _, ch := range cfg.Channels {
		got = append(got, ch.ID)
	}
	assert.ElementsMatch(t, want, got)
}

func TestWhatIsSetOtherwiseLoadsToo(t *testing.T) {
	base := channelXML("a", "A", tcpListener(6661), tcpSender("lab", 6662))
	for name, edits := range map[string][]string{
		"release 2":             {"<useMLLPv2>false", "<useMLLPv2>true"},
		"other bytes":           {"<startOfMessageBytes>0B", "<startOfMessageBytes>02", "<endOfMessageBytes>1C0D", "<endOfMessageBytes>03"},
		"basic with bytes":      {"<pluginPointName>MLLP", "<pluginPointName>Basic"},
		"basic without bytes":   {"<pluginPointName>MLLP", "<pluginPointName>Basic", "<startOfMessageBytes>0B", "<startOfMessageBytes>", "<endOfMessageBytes>1C0D", "<endOfMessageBytes>"},
		"basic, one a message":  {"<pluginPointName>MLLP", "<pluginPointName>Basic", "<startOfMessageBytes>0B", "<startOfMessageBytes>", "<endOfMessageBytes>1C0D", "<endOfMessageBytes>", "<keepConnectionOpen>true", "<keepConnectionOpen>false"},
		"client":                {"<serverMode>true", "<serverMode>false", "<remoteAddress></remoteAddress><remotePort></remotePort>", "<remoteAddress>lab</remoteAddress><remotePort>7000</remotePort>"},
		"no answers":            {"Auto-generate (After source transformer)", "None"},
		"answers elsewhere":     {"<respondOnNewConnection>0", "<respondOnNewConnection>1", "<responseAddress></responseAddress><responsePort></responsePort>", "<responseAddress>lab</responseAddress><responsePort>7000</responsePort>"},
		"stopped at first":      {"<initialState>STARTED", "<initialState>STOPPED"},
		"many connections":      {"<maxConnections>10", "<maxConnections>5000"},
		"a silence that ends":   {"<receiveTimeout>0", "<receiveTimeout>60000"},
		"UTF-8":                 {"DEFAULT_ENCODING", "UTF-8"},
		"kept connections":      {"<keepConnectionOpen>false", "<keepConnectionOpen>true"},
		"no wait for answers":   {"<ignoreResponse>false", "<ignoreResponse>true"},
		"a wait for ever":       {"<responseTimeout>5000", "<responseTimeout>0"},
		"own address":           {"<overrideLocalBinding>false</overrideLocalBinding><localAddress>", "<overrideLocalBinding>true</overrideLocalBinding><localAddress>"},
		"no queue, three tries": {"<queueEnabled>true", "<queueEnabled>false", "<retryCount>0", "<retryCount>2"},
		"a dollar in the name":  {"<name>A</name>", "<name>${A} #if $b</name>"},
	} {
		t.Run(name, func(t *testing.T) {
			text := base
			for i := 0; i < len(edits); i += 2 {
				require.Contains(t, text, edits[i])
				text = strings.ReplaceAll(text, edits[i], edits[i+1])
			}
			res := run(t, mirth.Options{}, text)
			assert.Empty(t, whats(res, mirth.Lost))
			assert.Equal(t, mirth.Imported, res.Channels[0].State)
			checkLoads(t, res)
		})
	}
}

func TestChannelsThatAreInEachOthersWayAreNotImportedTogether(t *testing.T) {
	file := fileWriter("f", "out")
	for name, tt := range map[string]struct {
		exports []string
		states  []mirth.State
	}{
		"one port":      {[]string{channelXML("a", "A", tcpListener(6661), tcpSender("x", 1)), channelXML("b", "B", tcpListener(6661), tcpSender("x", 1))}, []mirth.State{mirth.Imported, mirth.Refused}},
		"one directory": {[]string{channelXML("a", "A", tcpListener(6661), file), channelXML("b", "B", tcpListener(6662), file)}, []mirth.State{mirth.Imported, mirth.Refused}},
		"a ring": {
			[]string{channelXML("a", "A", channelReader(), channelWriter("w", "b")), channelXML("b", "B", channelReader(), channelWriter("w", "a")), channelXML("c", "C", channelReader(), channelWriter("w", "a"))},
			[]mirth.State{mirth.Refused, mirth.Refused, mirth.Refused},
		},
		"nobody there":         {[]string{channelXML("a", "A", tcpListener(6661), channelWriter("w", "gone"))}, []mirth.State{mirth.Refused}},
		"into one that is off": {[]string{channelXML("a", "A", tcpListener(6661), channelWriter("w", "b")), strings.Replace(channelXML("b", "B", channelReader(), file), "<metadata><enabled>true", "<metadata><enabled>false", 1)}, []mirth.State{mirth.Refused, mirth.Off}},
		"one id, one name":     {[]string{channelXML("a", "A", tcpListener(6661), file), channelXML("a", "A", tcpListener(6662), tcpSender("x", 1))}, []mirth.State{mirth.Imported, mirth.Imported}},
	} {
		t.Run(name, func(t *testing.T) {
			res := run(t, mirth.Options{}, tt.exports...)
			var states []mirth.State
			for _, ch := range res.Channels {
				states = append(states, ch.State)
			}
			assert.Equal(t, tt.states, states)
			checkLoads(t, res)
		})
	}
}

func TestDICOMOverTLSIsTakenTheOtherWayRound(t *testing.T) {
	secure := strings.NewReplacer("<tls>notls", "<tls>aes", "<keyStore>", "<keyStore>/keys/ae.p12", "<trustStore>", "<trustStore>/keys/ca.p12",
		"<keyStorePW>", "<keyStorePW>Xy77Secret", "<trustStorePW>", "<trustStorePW>Xy77Secret")
	res := run(t, mirth.Options{}, secure.Replace(channelXML("ct", "CT", dicomListener(2762), dicomSender("PACS"))))
	assert.Contains(t, string(res.YAML), "noClientAuth: false")
	assert.NotContains(t, string(res.YAML), "noClientAuth: true")
	assert.NotContains(t, string(res.YAML), "Xy77Secret")
	assert.Equal(t, mirth.Imported, res.Channels[0].State)

	res = run(t, mirth.Options{AcceptLosses: true}, strings.ReplaceAll(channelXML("ct", "CT", dicomListener(2762), fileWriter("f", "out")), "<tls>notls", "<tls>aes"))
	assert.Equal(t, mirth.Refused, res.Channels[0].State, "an empty key store is a public test key")
}

func TestAServersConfigurationIsReadForItsChannels(t *testing.T) {
	server := func(script string) string {
		return `<serverConfiguration version="4.5.2"><date>2026-01-01</date><channelGroups><channelGroup><id>g</id><channels><channel version="4.5.2"><id>a</id><revision>3</revision></channel></channels></channelGroup></channelGroups>
<channels>` + channelXML("a", "A", tcpListener(6661), tcpSender("lab", 6662)) + `</channels><users><user><username>admin</username></user></users>
<globalScripts><entry><string>Preprocessor</string><string>` + script + `</string></entry></globalScripts></serverConfiguration>`
	}
	res := run(t, mirth.Options{}, server("// none\nreturn message;"))
	require.Len(t, res.Channels, 1)
	assert.Equal(t, mirth.Imported, res.Channels[0].State)
	assert.Equal(t, "users", res.Findings[0].What)

	res = run(t, mirth.Options{}, server("return message.trim();"))
	assert.Equal(t, mirth.Held, res.Channels[0].State, "a global script runs for every channel")
}

func TestWhatIsNoExportIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":        "",
		"text":           "hello",
		"other XML":      "<alert><id>a</id></alert>",
		"other JSON":     `{"a": 1}`,
		"half XML":       channelXML("a", "A", tcpListener(1), tcpSender("x", 1))[:500],
		"half JSON":      channelJSON(1, 2)[:500],
		"two values":     channelJSON(1, 2) + "{}",
		"entity":         `<channel><id>&me;</id><sourceConnector/></channel>`,
		"document type":  `<!DOCTYPE c [<!ENTITY me SYSTEM "file:///etc/passwd">]>` + channelXML("a", "A", tcpListener(1), tcpSender("x", 1)),
		"deep XML":       strings.Repeat("<list>", 5000) + strings.Repeat("</list>", 5000),
		"deep JSON":      strings.Repeat(`{"list":`, 5000) + "1" + strings.Repeat("}", 5000),
		"deep lists":     strings.Repeat("[", 3_000_000),
		"too many":       "<list>" + strings.Repeat("<a/>", 500_000) + "</list>",
		"too many again": "[" + strings.Repeat("1,", 500_000) + "1]",
		"too long":       "<list>" + strings.Repeat(" ", 33<<20) + "</list>",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := try(mirth.Options{}, text)
			require.Error(t, err)
			assert.True(t, strings.HasPrefix(err.Error(), "export: "), err)
			assert.Less(t, len(err.Error()), 200)
		})
	}
}

func TestASourceThatAskedForCredentialsIsNeverOpen(t *testing.T) {
	basic := `<pluginProperties><com.mirth.connect.plugins.httpauth.basic.BasicHttpAuthProperties version="4.5.2"><authType>BASIC</authType><realm>x</realm></com.mirth.connect.plugins.httpauth.basic.BasicHttpAuthProperties></pluginProperties>`
	none := strings.NewReplacer("basic.BasicHttpAuthProperties", "NoneHttpAuthProperties", "BASIC", "NONE").Replace(basic)
	web := channelXML("web", "Web", httpListener(8081), tcpSender("lab", 6662))
	for plugin, want := range map[string]mirth.State{basic: mirth.Refused, none: mirth.Imported} {
		res := run(t, mirth.Options{AcceptLosses: true}, strings.Replace(web, "<pluginProperties/>", plugin, 1))
		assert.Equal(t, want, res.Channels[0].State)
	}
}

func TestDestinationsWithNamesAlikeDoNotShareAPassword(t *testing.T) {
	res := run(t, mirth.Options{}, channelXML("a", "A", tcpListener(6661), httpSender("x 1", "https://one.example.org/"), httpSender("x-1", "https://two.example.org/")))
	assert.Equal(t, 1, strings.Count(string(res.YAML), "password: ${MIRTH_A_X_1_PASSWORD}\n"), "%s", res.YAML)
	assert.Equal(t, 1, strings.Count(string(res.YAML), "password: ${MIRTH_A_X_1_PASSWORD_2}\n"))
	checkLoads(t, res)
}

func TestTextsKeepTheirMeaning(t *testing.T) {
	for body, want := range map[string]string{
		"It reads: ${message.rawData}":      "body: 'It reads: ${message.raw}'",
		"${message.encodedData}":            "body: ${message.raw}",
		"costs 5 $ # not a directive":       "body: 'costs 5 $ # not a directive'",
		"#if without a dollar":              "body: '#if without a dollar'",
		"two\nlines":                        `body: "two\nlines"`,
		"$${message.rawData}":               "", // here that would be the name itself
		"#if(1) ${message.rawData}":         "",
		"$name":                             "",
		"$!{name}":                          "",
		"${message.rawData} ${patientName}": "",
	} {
		text := strings.Replace(channelXML("a", "A", tcpListener(6661), smtpSender("Mail")), "<body>It reads: ${message.rawData}", "<body>"+body, 1)
		res := run(t, mirth.Options{}, text)
		if want == "" {
			assert.Contains(t, whats(res, mirth.Lost), "body", body)
			continue
		}
		assert.Empty(t, whats(res, mirth.Lost), body)
		assert.Contains(t, string(res.YAML), want)
		checkLoads(t, res)
	}
}

// Each way of framing with each way of answering: what the engine would not take is
// refused, not written.
func TestWaysOfFramingAndAnsweringGoTogetherOrAreRefused(t *testing.T) {
	modes := [][2]string{
		{"", ""},
		{"<useMLLPv2>false", "<useMLLPv2>true"},
		{"<pluginPointName>MLLP", "<pluginPointName>Basic"},
		{"<pluginPointName>MLLP</pluginPointName><startOfMessageBytes>0B</startOfMessageBytes><endOfMessageBytes>1C0D", "<pluginPointName>Basic</pluginPointName><startOfMessageBytes></startOfMessageBytes><endOfMessageBytes>"},
		{"<startOfMessageBytes>0B</startOfMessageBytes><endOfMessageBytes>1C0D", "<startOfMessageBytes>0B</startOfMessageBytes><endOfMessageBytes>0B0D"},
		{"<startOfMessageBytes>0B</startOfMessageBytes><endOfMessageBytes>1C0D", "<startOfMessageBytes>0B</startOfMessageBytes><endOfMessageBytes>"},
	}
	elsewhere := "<respondOnNewConnection>1</respondOnNewConnection><responseAddress>lab</responseAddress><responsePort>7000</responsePort>"
	same := "<respondOnNewConnection>0</respondOnNewConnection><responseAddress></responseAddress><responsePort></responsePort>"
	choices := [][][2]string{
		{{"", ""}, {"Auto-generate (After source transformer)", "None"}},
		{{"", ""}, {same, elsewhere}},
		{{"", ""}, {"<keepConnectionOpen>true", "<keepConnectionOpen>false"}},
		{{"", ""}, {"<keepConnectionOpen>false", "<keepConnectionOpen>true"}},
		{{"", ""}, {"<serverMode>true</serverMode><remoteAddress></remoteAddress><remotePort></remotePort>", "<serverMode>false</serverMode><remoteAddress>lab</remoteAddress><remotePort>7000</remotePort>"}},
		{{"", ""}, {"<ignoreResponse>false", "<ignoreResponse>true"}},
		{{"", ""}, {"DEFAULT_ENCODING", "ISO-8859-15"}},
	}
	text := channelXML("a", "A", tcpListener(6661), tcpSender("lab", 6662), tcpSender("other", 6663))
	var try func(text string, rest [][][2]string)
	try = func(text string, rest [][][2]string) {
		if len(rest) == 0 {
			checkLoads(t, run(t, mirth.Options{AcceptLosses: true}, text))
			return
		}
		for _, edit := range rest[0] {
			try(replace(text, edit[0], edit[1]), rest[1:])
		}
	}
	for _, mode := range modes {
		for _, second := range choices {
			for _, third := range choices {
				try(replace(text, mode[0], mode[1]), [][][2]string{second, third})
			}
		}
	}
}

// replace replaces all of what is there; of nothing, nothing.
func replace(text, from, to string) string {
	if from == "" {
		return text
	}
	return strings.ReplaceAll(text, from, to)
}
