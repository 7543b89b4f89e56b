package tlsprops_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/tlsprops"
)

// somePin is a pin of nobody.
const somePin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// fieldOf returns the field that err blames, and checks that its text is a line.
func fieldOf(t *testing.T, err error) string {
	t.Helper()
	var fieldErr *tlsprops.FieldError
	require.ErrorAs(t, err, &fieldErr)
	assert.NotContains(t, err.Error(), "\n")
	assert.True(t, strings.HasPrefix(err.Error(), "tlsprops: "+fieldErr.Field), err.Error())
	return fieldErr.Field
}

func TestContradictionsAreErrorsThatNameTheField(t *testing.T) {
	type props = tlsprops.TlsProperties
	for name, test := range map[string]struct {
		props props
		field string
	}{
		"unknown version":                   {props{MinVersion: "TLSv1.4"}, "minVersion"},
		"TLS 1.1":                           {props{MinVersion: "TLSv1.1"}, "minVersion"},
		"certificate without key":           {props{CertStorePath: "x"}, "keyStorePath"},
		"two passphrases":                   {props{KeyStorePath: "x", Passphrase: "a", PassphraseFile: "b"}, "passphraseFile"},
		"passphrase for nothing":            {props{Passphrase: "a"}, "passphrase"},
		"alias without decoder":             {props{KeyStorePath: "x", KeyAlias: "a"}, "keyAlias"},
		"alias without key store":           {props{KeyAlias: "a"}, "keyAlias"},
		"staple without key":                {props{OCSPStaplePath: "x"}, "ocspStaplePath"},
		"crlCheck without lists":            {props{CRLCheck: "soft"}, "crlCheck"},
		"unknown crlCheck":                  {props{CRLPaths: []string{"x"}, CRLCheck: "none"}, "crlCheck"},
		"empty list path":                   {props{CRLPaths: []string{""}}, "crlPaths"},
		"unknown verify":                    {props{Verify: "none"}, "verify"},
		"unknown clientAuth":                {props{ClientAuth: "want"}, "clientAuth"},
		"pinned without pins":               {props{Verify: tlsprops.VerifyPinned}, "pins"},
		"pinned with trust store":           {props{Verify: tlsprops.VerifyPinned, Pins: []string{somePin}, TrustStorePath: "x"}, "trustStorePath"},
		"chain-only with a name":            {props{Verify: tlsprops.VerifyChainOnly, ExpectedName: "a"}, "expectedName"},
		"unverified with verify":            {props{RejectUnauthorized: new(false), Verify: tlsprops.VerifyFull}, "verify"},
		"unverified with lists":             {props{RejectUnauthorized: new(false), CRLPaths: []string{"x"}}, "crlPaths"},
		"pin of another hash":               {props{Pins: []string{"sha1/AAAA"}}, "pins"},
		"pin of a wrong length":             {props{Pins: []string{"sha256/AAAA"}}, "pins"},
		"CBC suite":                         {props{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"}}, "cipherSuites"},
		"3DES suite":                        {props{CipherSuites: []string{"DES-CBC3-SHA"}}, "cipherSuites"},
		"suite of TLS 1.3":                  {props{CipherSuites: []string{"TLS_AES_128_GCM_SHA256"}}, "cipherSuites"},
		"server name with port":             {props{SniServerName: "host:2575"}, "sniServerName"},
		"server name with scheme":           {props{SniServerName: "https://host"}, "sniServerName"},
		"server name that is not ASCII":     {props{SniServerName: "krankenhaus-köln.de"}, "sniServerName"},
		"expected name that is no name":     {props{ExpectedName: "*.example.org"}, "expectedName"},
		"server name with an empty label":   {props{SniServerName: "a..b"}, "sniServerName"},
		"server name longer than DNS takes": {props{SniServerName: strings.Repeat("a.", 130)}, "sniServerName"},
	} {
		t.Run(name, func(t *testing.T) {
			test.props.Enabled = true
			assert.Equal(t, test.field, fieldOf(t, test.props.Validate()))
			_, err := tlsprops.Load(test.props)
			assert.Equal(t, test.field, fieldOf(t, err))
		})
	}
}

func TestContradictionsOfARoleAreErrorsThatNameTheField(t *testing.T) {
	type props = tlsprops.TlsProperties
	for name, test := range map[string]struct {
		role  tlsprops.Role
		props props
		field string
	}{
		"listener without key":                  {tlsprops.Listener, props{}, "keyStorePath"},
		"client certificates without CA":        {tlsprops.Listener, props{KeyStorePath: "x", RequireClientCert: true}, "trustStorePath"},
		"the alias without CA":                  {tlsprops.Listener, props{KeyStorePath: "x", RequireClientAuth: true}, "trustStorePath"},
		"optional certificates without CA":      {tlsprops.Listener, props{KeyStorePath: "x", ClientAuth: "optional"}, "trustStorePath"},
		"unverified client certificates":        {tlsprops.Listener, props{KeyStorePath: "x", TrustStorePath: "x", RequireClientCert: true, RejectUnauthorized: new(false)}, "rejectUnauthorized"},
		"listener that pins nobody":             {tlsprops.Listener, props{KeyStorePath: "x", Pins: []string{somePin}}, "pins"},
		"listener with lists for nobody":        {tlsprops.Listener, props{KeyStorePath: "x", CRLPaths: []string{"x"}}, "crlPaths"},
		"listener with a server name":           {tlsprops.Listener, props{KeyStorePath: "x", SniServerName: "a"}, "sniServerName"},
		"client that requires a certificate":    {tlsprops.Client, props{RequireClientCert: true}, "requireClientCert"},
		"client that requires authentication":   {tlsprops.Client, props{RequireClientAuth: true}, "requireClientAuth"},
		"client that staples":                   {tlsprops.Client, props{KeyStorePath: "x", OCSPStaplePath: "x"}, "ocspStaplePath"},
		"client with optional client authentic": {tlsprops.Client, props{ClientAuth: "optional"}, "clientAuth"},
	} {
		t.Run(name, func(t *testing.T) {
			test.props.Enabled = true
			assert.Equal(t, test.field, fieldOf(t, test.props.ValidateFor(test.role)))
		})
	}
}

func TestASourceRefusesARoleThatItsSettingsAreNotFor(t *testing.T) {
	p := newPKI(t)
	_, err := load(t, p.trusting()).ServerConfig()
	assert.Equal(t, "keyStorePath", fieldOf(t, err))
	_, err = load(t, p.mutual()).ClientConfig("localhost")
	assert.Equal(t, "requireClientCert", fieldOf(t, err))
}

func TestEverySettingIsAnErrorWhileTLSIsDisabled(t *testing.T) {
	kind := reflect.TypeFor[tlsprops.TlsProperties]()
	for i := range kind.NumField() {
		field := kind.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" || name == "enabled" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var p tlsprops.TlsProperties
			v := reflect.ValueOf(&p).Elem().Field(i)
			switch v.Interface().(type) {
			case string, tlsprops.VerifyMode:
				v.SetString("x")
			case bool:
				v.SetBool(true)
			case *bool:
				v.Set(reflect.ValueOf(new(true)))
			case []string:
				v.Set(reflect.ValueOf([]string{"x"}))
			default:
				t.Fatalf("a field of type %s", v.Type())
			}
			assert.Equal(t, name, fieldOf(t, p.Validate()))
			_, err := tlsprops.Load(p)
			assert.Equal(t, name, fieldOf(t, err))
			assert.Error(t, p.ValidateFor(tlsprops.Client))
		})
	}
}

func TestDisabledPropertiesLoadAsErrDisabled(t *testing.T) {
	var p tlsprops.TlsProperties
	require.NoError(t, p.Validate())
	require.NoError(t, p.ValidateFor(tlsprops.Listener))
	source, err := tlsprops.Load(p)
	assert.Nil(t, source)
	assert.ErrorIs(t, err, tlsprops.ErrDisabled)
}

func TestVersionsAreReadInEverySpelling(t *testing.T) {
	p := newPKI(t)
	for spelling, want := range map[string]uint16{
		"": 0x0303, "TLSv1.2": 0x0303, "TLSv1_2": 0x0303, "TLS1.2": 0x0303, "TLS12": 0x0303, "tls1.2": 0x0303,
		"1.2": 0x0303, "VersionTLS12": 0x0303, " TLSv1.2 ": 0x0303, "TLS 1.2": 0x0303, "TLSv12": 0x0303,
		"TLSv1.3": 0x0304, "tlsv1_3": 0x0304, "TLS13": 0x0304, "1.3": 0x0304, "TLS-1.3": 0x0304,
	} {
		props := p.listener()
		props.MinVersion = spelling
		assert.Equal(t, want, serverConfig(t, props).MinVersion, "%q", spelling)
	}
	for _, spelling := range []string{"TLSv1", "TLSv1.0", "TLSv1.1", "1.0", "1.1", "TLS10", "SSLv3", "SSL", "VersionTLS11"} {
		err := (&tlsprops.TlsProperties{Enabled: true, MinVersion: spelling}).Validate()
		assert.ErrorContains(t, err, "RFC 8996", "%q", spelling)
	}
	for _, spelling := range []string{"1.4", "TLS", "latest", "0x0303", "2", "TLSv1.2,TLSv1.3", " "} {
		err := (&tlsprops.TlsProperties{Enabled: true, MinVersion: spelling}).Validate()
		assert.ErrorContains(t, err, "use TLSv1.2 or TLSv1.3", "%q", spelling)
	}
}

func TestJSONFillsEveryFieldOfTheGuide(t *testing.T) {
	var p tlsprops.TlsProperties
	require.NoError(t, json.Unmarshal([]byte(`{
		"enabled": true, "keyStorePath": "a", "certStorePath": "b", "trustStorePath": "c", "rejectUnauthorized": false,
		"requireClientCert": true, "requireClientAuth": true, "sniServerName": "d", "minVersion": "TLSv1.2", "passphrase": "e"
	}`), &p))
	assert.Equal(t, tlsprops.TlsProperties{
		Enabled: true, KeyStorePath: "a", CertStorePath: "b", TrustStorePath: "c", RejectUnauthorized: new(false),
		RequireClientCert: true, RequireClientAuth: true, SniServerName: "d", MinVersion: "TLSv1.2", Passphrase: "e",
	}, p)
}

func TestAbsentAndNullRejectUnauthorizedMeanTrue(t *testing.T) {
	pki := newPKI(t)
	for _, text := range []string{`{"enabled": true}`, `{"enabled": true, "rejectUnauthorized": null}`, `{"enabled": true, "rejectUnauthorized": true}`} {
		var p tlsprops.TlsProperties
		require.NoError(t, json.Unmarshal([]byte(text), &p))
		p.TrustStorePath = pki.caFile
		source := load(t, p)
		config, err := source.ClientConfig("localhost")
		require.NoError(t, err)
		assert.False(t, config.InsecureSkipVerify, text)
		assert.False(t, source.Status().Insecure, text)
	}
}

func TestUnknownJSONFieldsAreErrors(t *testing.T) {
	var p tlsprops.TlsProperties
	err := json.Unmarshal([]byte(`{"enabled": true, "trustStore": "x"}`), &p)
	assert.ErrorContains(t, err, `"trustStore"`)
	assert.Error(t, json.Unmarshal([]byte(`{"reloadInterval": 1}`), &p), "set by programs only")
}

func TestYAMLAndJSONNamesAreTheSame(t *testing.T) {
	kind := reflect.TypeFor[tlsprops.TlsProperties]()
	for f := range kind.Fields() {
		assert.NotEmpty(t, f.Tag.Get("json"), f.Name)
		assert.Equal(t, f.Tag.Get("json"), f.Tag.Get("yaml"), f.Name)
	}
}

func TestNoWayOfPrintingShowsAPassphrase(t *testing.T) {
	const secret = "correct horse"
	p := tlsprops.TlsProperties{Enabled: true, KeyStorePath: "/keys/server.key", Passphrase: secret, KeyPassphrase: secret}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("settings", "tls", p, "pointer", &p)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("settings", "tls", p, "pointer", &p)
	texts := []string{log.String(), p.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		texts = append(texts, fmt.Sprintf(verb, p), fmt.Sprintf(verb, &p), fmt.Sprintf(verb, struct{ P tlsprops.TlsProperties }{p}))
	}
	for _, text := range texts {
		assert.NotContains(t, text, secret)
		assert.NotContains(t, text, fmt.Sprintf("%x", secret))
		assert.Contains(t, text, "/keys/server.key")
	}
	assert.Contains(t, p.String(), "passphrase:[redacted]")
}

func TestPrintingShowsEveryOtherSetting(t *testing.T) {
	kind := reflect.TypeFor[tlsprops.TlsProperties]()
	var p tlsprops.TlsProperties
	for i := range kind.NumField() {
		if kind.Field(i).Tag.Get("json") == "-" {
			continue
		}
		switch v := reflect.ValueOf(&p).Elem().Field(i); v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Pointer:
			v.Set(reflect.ValueOf(new(true)))
		default:
			v.Set(reflect.ValueOf([]string{"x"}))
		}
	}
	for f := range kind.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" {
			assert.Contains(t, p.String(), name+":")
		}
	}
}

func FuzzJSONThatIsAcceptedSurvivesARoundTrip(f *testing.F) {
	f.Add(`{"enabled": true, "pins": ["a"], "rejectUnauthorized": false, "verify": "full"}`)
	f.Add(`{"ENABLED": true, "minVersion": "tls12"}`)
	f.Add(`null`)
	f.Add(`{"enabled": "true"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var p, again tlsprops.TlsProperties
		if json.Unmarshal([]byte(text), &p) != nil {
			return
		}
		saved, err := json.Marshal(p)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(saved, &again))
		assert.Equal(t, p.String(), again.String())
		if err := p.Validate(); err != nil {
			assert.NotEmpty(t, fieldOf(t, err))
		}
	})
}

func FuzzNamesAndVersionsNeverPassBelowTLS12(f *testing.F) {
	pki := newPKI(f)
	f.Add("TLSv1.2", "localhost", somePin)
	f.Add("1.1", "127.0.0.1", "sha256/")
	f.Add("versiontlsv13", "[::1]", "")
	f.Add("tls_v1.2", "a.b.", "sha256/\n")
	f.Fuzz(func(t *testing.T, version, host, pin string) {
		p := pki.trusting()
		p.MinVersion, p.Pins = version, []string{pin}
		if pin == "" {
			p.Pins = nil
		}
		p.SniServerName = host
		if host == "" || p.Validate() != nil {
			return
		}
		config := clientConfig(t, p, "")
		assert.GreaterOrEqual(t, config.MinVersion, uint16(0x0303))
		assert.NotEmpty(t, config.ServerName)
		assert.NotContains(t, config.ServerName, ":"+"//")
	})
}

// No name of a cipher suite, in whatever spelling, lets in one without forward
// secrecy or without authenticated encryption.
func FuzzCipherSuitesAreNeverWeak(f *testing.F) {
	pki := newPKI(f)
	for _, name := range []string{
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "tls_ecdhe_rsa_with_aes_256_gcm_sha384",
		"TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "DES-CBC3-SHA", "TLS_AES_128_GCM_SHA256",
		" ECDHE-RSA-AES128-GCM-SHA256", "ALL", "",
	} {
		f.Add(name, "ECDHE-RSA-AES256-GCM-SHA384")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		p := pki.trusting()
		p.CipherSuites = []string{first, second}
		if err := p.Validate(); err != nil {
			assert.Equal(t, "cipherSuites", fieldOf(t, err))
			return
		}
		suites := clientConfig(t, p, "localhost").CipherSuites
		assert.NotEmpty(t, suites, "nil would be the choice of crypto/tls, with CBC in it")
		for _, id := range suites {
			name := tls.CipherSuiteName(id)
			assert.True(t, strings.HasPrefix(name, "TLS_ECDHE_"), name)
			assert.True(t, strings.Contains(name, "_GCM_") || strings.Contains(name, "_CHACHA20_POLY1305_"), name)
		}
	})
}
