package smtpx_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/smtpx"
)

// scramServer is the server's side of SCRAM-SHA-256 and its PLUS form (RFC 5802
// section 3, RFC 9266), with what a test wants of it wrong.
type scramServer struct {
	iterations int
	lies       bool // the server's proof is wrong
	silent     bool // there is none
	state      *tls.ConnectionState
	bound      bool // out: the client bound the exchange to this TLS connection
}

func (s *scramServer) auth(mechanism, _ string, ask func(string) (string, bool)) bool {
	b64 := base64.StdEncoding
	read := func(challenge string) string {
		answer, _ := ask(b64.EncodeToString([]byte(challenge)))
		text, _ := b64.DecodeString(answer)
		return string(text)
	}
	first := read("")
	header, bare := first[:strings.Index(first, "n=")], first[strings.Index(first, "n="):]
	_, nonce, _ := strings.Cut(bare, ",r=")
	salt := []byte("salt of sixteen.")
	challenge := fmt.Sprintf("r=%sserver,s=%s,i=%d", nonce, b64.EncodeToString(salt), s.iterations)
	final := read(challenge)
	without, proof, found := strings.Cut(final, ",p=")
	if !found {
		return false
	}
	channel, _ := b64.DecodeString(strings.TrimPrefix(strings.SplitN(without, ",", 2)[0], "c="))
	if strings.HasSuffix(mechanism, "-PLUS") {
		want, _ := s.state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		s.bound = header == "p=tls-exporter,," && bytes.Equal(channel, append([]byte(header), want...))
		if !s.bound {
			return false
		}
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	salted, _ := pbkdf2.Key(sha256.New, secretPassword, salt, s.iterations, 32)
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	all := bare + "," + challenge + "," + without
	signature := mac(stored[:], all)
	for i := range signature {
		signature[i] ^= clientKey[i]
	}
	if proof != b64.EncodeToString(signature) {
		return false
	}
	if s.silent {
		return true
	}
	serverSignature := mac(mac(salted, "Server Key"), all)
	if s.lies {
		serverSignature[0] ^= 1
	}
	read("v=" + b64.EncodeToString(serverSignature))
	return true
}

func TestAScramServerMustKnowThePasswordToo(t *testing.T) {
	for name, tt := range map[string]struct {
		server scramServer
		offers string
		fails  bool
	}{
		"bound to TLS":           {scramServer{iterations: 4096}, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN", false},
		"not bound":              {scramServer{iterations: 4096}, "SCRAM-SHA-256 PLAIN", false},
		"a wrong proof":          {scramServer{iterations: 4096, lies: true}, "SCRAM-SHA-256", true},
		"no proof":               {scramServer{iterations: 4096, silent: true}, "SCRAM-SHA-256", true},
		"too little work":        {scramServer{iterations: 1}, "SCRAM-SHA-256", true},
		"work that does not end": {scramServer{iterations: 1 << 31}, "SCRAM-SHA-256", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := pki(t)
				scram := &tt.server
				p := &peer{tls: server, ext: []string{"STARTTLS", "AUTH " + tt.offers}, auth: scram.auth}
				p.secured = func(state *tls.ConnectionState) { scram.state = state }
				s := p.inMemory(t, smtpx.EncryptionTLS, client)
				s.Auth = credentials
				_, err := s.Send(t.Context(), note("a@example.org"))
				assert.NotContains(t, p.transcript(), "AUTH PLAIN\n")
				if tt.fails {
					require.ErrorIs(t, err, smtpx.ErrAuth)
					assert.False(t, failure(t, err).Retryable())
					assert.Empty(t, p.taken())
					return
				}
				require.NoError(t, err)
				assert.Equal(t, strings.Contains(tt.offers, "PLUS"), scram.bound)
			})
		})
	}
}
