package dicomtls_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/carewire/carewire/dicomtls"
)

func TestTheWordsOfAModeAreReadToTheLetter(t *testing.T) {
	for _, word := range []string{"notls", "3des", "aes", "bcp195"} {
		var p dicomtls.Properties
		require.NoError(t, json.Unmarshal([]byte(`{"tls":"`+word+`"}`), &p))
		assert.Equal(t, word, p.TLS.String())
		var fromYAML dicomtls.Properties
		require.NoError(t, yaml.Unmarshal([]byte("tls: "+word), &fromYAML))
		assert.Equal(t, p.TLS, fromYAML.TLS)
		out, err := json.Marshal(&p)
		require.NoError(t, err)
		assert.JSONEq(t, `{"tls":"`+word+`"}`, string(out))
	}
	for word, says := range map[string]string{
		"":        "is empty: use notls, 3des, aes or bcp195",
		"without": "Mirth's word for TLS that encrypts nothing",
		"AES":     "unknown: use notls, 3des, aes or bcp195",
		" aes":    "unknown",
		"aes ":    "unknown",
		"tls":     "unknown",
		"none":    "unknown",
		"null":    "unknown",
	} {
		var p dicomtls.Properties
		err := json.Unmarshal([]byte(`{"tls":"`+word+`"}`), &p)
		require.ErrorContains(t, err, says, word)
		var field *dicomtls.FieldError
		require.ErrorAs(t, err, &field, word)
		assert.Equal(t, "tls", field.Field)
		assert.Error(t, yaml.Unmarshal([]byte(`tls: "`+word+`"`), &p), word)
	}
	_, err := dicomtls.DicomTlsMode("AES").MarshalText()
	assert.Error(t, err)
	var p dicomtls.Properties
	require.NoError(t, json.Unmarshal([]byte(`{}`), &p))
	assert.Equal(t, "notls", p.TLS.String(), "the guide's default")
	assert.False(t, p.TLS.Enabled())
}

func TestTheGuidesSettingsAreReadAndUnknownOnesRefused(t *testing.T) {
	var p dicomtls.Properties
	require.NoError(t, json.Unmarshal([]byte(`{
		"tls": "aes", "keyStore": "/certs/dicom-keystore.p12", "keyStorePW": "a", "keyPW": "b",
		"trustStore": "/certs/dicom-truststore.p12", "trustStorePW": "c", "noClientAuth": false, "nossl2": true}`), &p))
	assert.Equal(t, dicomtls.Properties{
		TLS: dicomtls.ModeAES, KeyStore: "/certs/dicom-keystore.p12", KeyStorePW: "a", KeyPW: "b",
		TrustStore: "/certs/dicom-truststore.p12", TrustStorePW: "c", NoSSL2: new(true),
	}, p)
	for _, wrong := range []string{`{"noClientAuht": true}`, `{"keystorepath": "x"}`, `{"tls": 1}`, `{"noClientAuth": "yes"}`} {
		assert.Error(t, json.Unmarshal([]byte(wrong), &p), wrong)
	}
}
