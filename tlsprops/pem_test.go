package tlsprops

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
)

// utf16Of encodes text in UTF-16 without a byte order mark.
func utf16Of(text string, bigEndian bool) string {
	var out []byte
	for _, u := range utf16.Encode([]rune(text)) {
		if bigEndian {
			out = append(out, byte(u>>8), byte(u))
		} else {
			out = append(out, byte(u), byte(u>>8))
		}
	}
	return string(out)
}

func eachLine(text string, change func(n int, line string) string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = change(i+1, line)
	}
	return strings.Join(lines, "\n") + "\n"
}

// goodChains are files of the two golden certificates.
func goodChains(tb testing.TB) map[string]string {
	tb.Helper()
	first, second := string(golden(tb, "cert.pem")), string(golden(tb, "cert-other.pem"))
	key := string(golden(tb, "ec.pem"))
	both := first + second
	return map[string]string{
		"plain":                       both,
		"CRLF":                        strings.ReplaceAll(both, "\n", "\r\n"),
		"spaces at line ends":         strings.ReplaceAll(both, "\n", " \t\n"),
		"no last newline":             strings.TrimSuffix(both, "\n"),
		"half of the last CRLF":       strings.TrimSuffix(strings.ReplaceAll(both, "\n", "\r\n"), "\n"),
		"byte order mark":             utf8BOM + both,
		"byte order mark in each":     utf8BOM + first + utf8BOM + second,
		"X509 CERTIFICATE":            strings.ReplaceAll(both, " CERTIFICATE", " X509 CERTIFICATE"),
		"TRUSTED CERTIFICATE":         string(golden(tb, "trusted.pem")) + second,
		"TRUSTED, for both uses":      string(golden(tb, "trusted-both.pem")) + second,
		"TRUSTED without settings":    strings.ReplaceAll(both, " CERTIFICATE", " TRUSTED CERTIFICATE"),
		"text around the blocks":      "Subject: -- CN=a --\n" + first + "\n\n=== the next ===\nOU=-----\n" + second + "the end",
		"Latin-1 between the blocks":  first + "friendlyName: M\xfcller\n" + second,
		"blank lines within":          eachLine(both, func(_ int, line string) string { return line + "\n" }),
		"an indented body":            eachLine(both, func(_ int, line string) string { return strings.Replace("  "+line, "  -----", "-----", 1) }),
		"a block with PEM headers":    strings.Replace(both, "CERTIFICATE-----\n", "CERTIFICATE-----\nalias: ca\nmore: x\n\n", 1),
		"a private key between":       first + key + second,
		"an encrypted key between":    first + string(golden(tb, "rsa-traditional-aes256.pem")) + second,
		"EC PARAMETERS and key first": string(golden(tb, "ec-parameters.pem")) + both,
		"DH PARAMETERS last":          both + pemOf("DH PARAMETERS", []byte{0x30, 0}),
		"a block switched off":        first + eachLine(first, func(_ int, line string) string { return "# " + line }) + second,
	}
}

func TestAChainIsReadInFileOrderWhateverItsDress(t *testing.T) {
	for name, text := range goodChains(t) {
		t.Run(name, func(t *testing.T) {
			require.True(t, isPEM([]byte(text)))
			chain, err := parseChain([]byte(text))
			require.NoError(t, err)
			require.Len(t, chain, 2)
			assert.Equal(t, "ca.example.org", chain[0].Subject.CommonName)
			assert.Equal(t, "other.example.org", chain[1].Subject.CommonName)
		})
	}
}

// badChains are files with what their errors must say.
func badChains(tb testing.TB) map[string]struct{ text, want string } {
	tb.Helper()
	first, second := string(golden(tb, "cert.pem")), string(golden(tb, "cert-other.pem"))
	both := first + second // of 11 and of 19 lines
	key := string(golden(tb, "ec.pem"))
	indent := func(_ int, line string) string { return "  " + line }
	der := goldenDER(tb, "cert.pem")
	damaged := bytes.Clone(der)
	damaged[4] ^= 0xff // a tag
	return map[string]struct{ text, want string }{
		"UTF-16 with a mark":        {"\xff\xfe" + utf16Of(both, false), "UTF-16 text: save it as UTF-8"},
		"UTF-16 big endian":         {utf16Of(both, true), "UTF-16 text"},
		"UTF-16 little endian":      {utf16Of(both, false), "UTF-16 text"},
		"one line":                  {strings.ReplaceAll(both, "\n", " "), "block 1 (line 1): the line breaks are lost"},
		"one line without spaces":   {strings.ReplaceAll(both, "\n", ""), "block 1 (line 1): the line breaks are lost"},
		"CR alone":                  {strings.ReplaceAll(both, "\n", "\r"), "block 1 (line 1): the line breaks are lost"},
		"literal newlines":          {strings.ReplaceAll(both, "\n", `\n`), `the two characters \n stand`},
		"literal CRLF":              {strings.ReplaceAll(both, "\n", `\r\n`), `the two characters \n stand`},
		"the second on one line":    {first + strings.ReplaceAll(second, "\n", " "), "block 2 (line 12): the line breaks are lost"},
		"all indented":              {eachLine(both, indent), "line 1: a damaged or indented BEGIN or END line"},
		"the second indented":       {first + eachLine(second, indent), "line 12: a damaged or indented"},
		"END indented":              {strings.Replace(both, "\n-----END", "\n -----END", 1), "block 1 (line 1): line 11: a damaged or indented END line"},
		"quoted":                    {eachLine(both, func(_ int, line string) string { return "> " + line }), "line 1: a damaged"},
		"behind a YAML key":         {"cert: " + both, "line 1: a damaged"},
		"joined without newline":    {strings.TrimSuffix(first, "\n") + second, "line 11: the line break between this END line and the next BEGIN line is lost"},
		"four dashes":               {first + strings.Replace(second, "-----BEGIN", "----BEGIN", 1), "line 12: a damaged"},
		"a word processor's dashes": {first + strings.Replace(second, "-----BEGIN", "—–BEGIN", 1), "line 12: a damaged"},
		"BEGIN line cut off":        {first + "-----BEGIN CERTIF", "block 2 (line 12): the BEGIN line is cut off"},
		"END line cut off":          {strings.TrimSuffix(both, "---\n"), "block 2 (line 12): line 30: the END line is not that of"},
		"END of another":            {strings.Replace(both, "END CERTIFICATE", "END X509 CERTIFICATE", 1), `the END line is not that of "CERTIFICATE"`},
		"no END before BEGIN":       {strings.Replace(both, "-----END CERTIFICATE-----\n", "", 1), "block 1 (line 1): no END line before line 11 begins another block"},
		"no END at all":             {strings.Replace(both, second[len(second)-27:], "", 1) + second[:200], "no END line"},
		"no BEGIN":                  {strings.Replace(both, "-----BEGIN CERTIFICATE-----\n", "", 1), "line 10: END line of a block that has no BEGIN line"},
		"only BEGIN switched off":   {"#" + both, "line 11: END line of a block that has no BEGIN line"},
		"a comment within":          {strings.Replace(both, "\nMII", "\n# new\nMII", 1), "block 1 (line 1): the base64 text"},
		"damaged base64":            {first + strings.Replace(second, "MII", "M!I", 1), `block 2 (line 12): the base64 text of "CERTIFICATE" is damaged`},
		"damaged certificate":       {second + pemOf("CERTIFICATE", damaged), "block 2 (line 20): not a readable certificate"},
		"bytes after a certificate": {pemOf("CERTIFICATE", append(bytes.Clone(der), 0)), "block 1 (line 1): not a readable certificate"},
		"an empty block":            {first + "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "block 2 (line 12): not a readable certificate"},
		"a CRL":                     {first + pemOf("X509 CRL", []byte{0x30, 0}), "block 2 (line 12): a certificate revocation list: it belongs in a file of crlPaths"},
		"PKCS #7":                   {first + pemOf("PKCS7", []byte{0x30, 0}), "openssl pkcs7 -print_certs"},
		"a label nobody knows":      {first + pemOf("CERTIFICATE 2", []byte{0x30, 0}), `block 2 (line 12): the label "CERTIFICATE 2" is not known`},
		"a hostile label":           {first + strings.ReplaceAll(pemOf("X", []byte{0x30, 0}), "X", strings.Repeat("\x1b\u202e", 200)), `the label "\x1b\u202e`},
		"a key for a certificate":   {key, "no certificate, but a private key: are the paths of certificate and key swapped?"},
		"a request":                 {pemOf("CERTIFICATE REQUEST", []byte{0x30, 0}), "no certificate, but a certificate request"},
		"parameters only":           {pemOf("EC PARAMETERS", []byte{0x30, 0}), "no certificate"},
		"nothing":                   {"", "the file is an empty file"},
		"a mark and nothing":        {utf8BOM + "\n", "the file is an empty file"},
		"prose":                     {"see the other folder\n", "text without any PEM block"},
		"DER":                       {string(der), "the file is a DER certificate: convert it with openssl x509 -inform DER"},
		"DER of a key":              {string(goldenDER(tb, "ec.pem")), "the file is a DER private key: convert it with openssl pkcs8 -topk8 -inform DER"},
		"DER of PKCS #7":            {"\x30\x0f\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x02\x05\x00", "the file is a PKCS #7 bundle: convert it with openssl pkcs7 -inform DER"},
		"base64 alone":              {base64.StdEncoding.EncodeToString(der), "base64 without BEGIN and END lines"},
		"base64 of PEM":             {base64.StdEncoding.EncodeToString([]byte(both)), "a PEM file in base64 (as in a Kubernetes Secret)"},
		"trusted as server only":    {string(golden(tb, "trusted-server.pem")), "block 1 (line 1): a certificate trusted for some uses only"},
		"rejected as server":        {first + string(golden(tb, "trusted-rejected.pem")), "block 2 (line 12): a certificate trusted for some uses only"},
		"trust that is not read":    {pemOf("TRUSTED CERTIFICATE", append(bytes.Clone(der), 1, 2, 3)), "trust settings after the certificate that cannot be read"},
		"no trusted certificate":    {pemOf("TRUSTED CERTIFICATE", []byte("none")), "not a readable certificate"},
	}
}

func TestACertificateFileThatWouldBeReadInPartIsRefused(t *testing.T) {
	for name, tt := range badChains(t) {
		t.Run(name, func(t *testing.T) {
			chain, err := parseChain([]byte(tt.text))
			require.ErrorContains(t, err, tt.want)
			assert.Nil(t, chain)
			assertOneLineWithout(t, err, "\x1b")
			assert.Less(t, len(err.Error()), 400)
		})
	}
}

// The case that started this: encoding/pem reads a chain cut within its second
// certificate as the leaf alone.
func TestAChainCutAnywhereIsNeverReadAsAShorterOne(t *testing.T) {
	first, second := golden(t, "cert.pem"), golden(t, "cert-other.pem")
	both := bytes.TrimSuffix(append(bytes.Clone(first), second...), []byte("\n"))
	for n := range both {
		chain, err := parseChain(both[:n])
		if n == len(first)-1 || n == len(first) {
			require.NoError(t, err, "a cut between the two leaves a good file")
			continue
		}
		require.Error(t, err, "cut at %d", n)
		require.Nil(t, chain)
	}
	chain, err := parseChain(both)
	require.NoError(t, err)
	assert.Len(t, chain, 2)
}

func TestADamagedCertificateAmongManyIsFoundWithItsPlace(t *testing.T) {
	good := string(golden(t, "cert.pem"))
	for bad := range 5 {
		var text strings.Builder
		for i := range 5 {
			if i == bad {
				text.WriteString(strings.Replace(good, "MII", "MIJ", 1))
			} else {
				text.WriteString(good)
			}
		}
		_, err := parseChain([]byte(text.String()))
		assert.ErrorContains(t, err, fmt.Sprintf("block %d (line %d): ", bad+1, bad*strings.Count(good, "\n")+1))
	}
}

func TestAFileIsNamedForWhatItIs(t *testing.T) {
	der := func(file string) string { return string(goldenDER(t, file)) }
	cert := string(golden(t, "cert.pem"))
	pfx := string(mustMarshal(t, struct {
		Version int
		Safe    struct{ OID asn1.ObjectIdentifier }
	}{3, struct{ OID asn1.ObjectIdentifier }{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}}))
	for _, tt := range []struct {
		data, want string
		isPEM      bool
	}{
		{"", "an empty file", true},
		{" \r\n", "an empty file", true},
		{cert, "a PEM file", true},
		{"\xff\xfe" + utf16Of(cert, false), "UTF-16 text", true},
		{"-----BEGIN OPENSSH PRIVATE KEY-----\n", "an OpenSSH private key", true},
		{"PuTTY-User-Key-File-3: ssh-rsa\n", "a PuTTY private key", true},
		{"---- BEGIN SSH2 PUBLIC KEY ----\n", "an SSH key", true},
		{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here\n", "an SSH public key", true},
		{"<!DOCTYPE html>\n", "an XML or HTML document", true},
		{"some words\n", "text without any PEM block", true},
		{base64.StdEncoding.EncodeToString([]byte(cert)), "a PEM file in base64 (as in a Kubernetes Secret): decode it first", true},
		{base64.StdEncoding.EncodeToString([]byte(der("cert.pem"))), "base64 without BEGIN and END lines", true},
		{der("cert.pem"), "a DER certificate", false},
		{der("ec.pem"), "a DER private key", false},
		{der("rsa-pkcs1.pem"), "a DER private key", false},
		{der("kind-secp256k1-sec1.pem"), "a DER private key", false},
		{der("kind-dsa-traditional.pem"), "a DER private key", false},
		{der("ec-scrypt.pem"), "an encrypted DER private key", false},
		{pfx, "a PKCS #12 key store", false},
		{"\x30\x80\x02\x01\x03\x30\x80", "a PKCS #12 key store or another ASN.1 file", false},
		{"\x30\x04\x05\x00\x05\x00", "an ASN.1 file", false},
		{"\x30\x80", "a PKCS #12 key store or another ASN.1 file", false},
		{"\x30\x81\x02\x05\x00", "binary data of an unknown kind", false},
		{"\xfe\xed\xfe\xed\x00\x00\x00\x02", "a JKS key store", false},
		{"\xce\xce\xce\xce\x00\x00\x00\x02", "a JCEKS key store", false},
		{"\x00\x00\x00\x02\x00\x00\x00\x14salt", "a Bouncy Castle key store (BKS or UBER)", false},
		{"\x7fELF\x02\x01\x01\x00", "binary data of an unknown kind", false},
		{"\x00\x01\x02 -----BEGIN", "binary data of an unknown kind", false},
	} {
		assert.Equal(t, tt.want, describe([]byte(tt.data)), "%.20q", tt.data)
		assert.Equal(t, tt.isPEM, isPEM([]byte(tt.data)), "%.20q", tt.data)
	}
}

func TestRealBundlesOfThisMachineAreReadWhole(t *testing.T) {
	const bundle = "/etc/ssl/certs/ca-certificates.crt"
	data, err := os.ReadFile(bundle)
	if err != nil {
		interop.Missing(t, "there is no "+bundle)
	}
	chain, err := parseChain(data)
	require.NoError(t, err)
	assert.Len(t, chain, bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")))
}
