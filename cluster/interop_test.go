package cluster_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/internal/interop"
)

// run returns what openssl writes.
func run(t *testing.T, openssl string, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), openssl, args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	require.NoError(t, err, args)
	return out
}

// TestASignatureMadeByOpensslAsDocumentedIsAccepted follows the comment of
// SignatureHeader with none of this package's code.
func TestASignatureMadeByOpensslAsDocumentedIsAccepted(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	hkdf := func(info, length string) string {
		return hex.EncodeToString(run(t, openssl, nil, "kdf", "-binary", "-keylen", length, "-kdfopt", "digest:SHA256",
			"-kdfopt", "key:"+string(secretA), "-kdfopt", "info:"+info, "HKDF"))
	}
	field := func(text string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text
	}
	const body = `{"channelId":"adt","rawData":"MSH|"}`
	b64 := base64.RawURLEncoding
	_, b, seen := pair(t)
	h := b.Handler(&echo{}) // before the time is taken

	header := fmt.Sprintf("v1;kid=%s;ts=%d;nonce=%s;from=mirth-1;to=node-b;digest=%s",
		hkdf("carewire cluster v1 key id", "8"), time.Now().UnixMilli(), b64.EncodeToString(run(t, openssl, nil, "rand", "16")),
		b64.EncodeToString(run(t, openssl, []byte(body), "dgst", "-sha256", "-binary")))
	toSign := "carewire cluster v1 request\n" + field("POST") + field("/api/internal/dispatch?try=1") +
		"\x00\x00\x00\x01" + field("application/json") + "\x00\x00\x00\x00" + header
	mac := run(t, openssl, []byte(toSign), "dgst", "-sha256", "-binary", "-mac", "HMAC",
		"-macopt", "hexkey:"+hkdf("carewire cluster v1 hmac", "32"))
	r := post(t, body)
	r.Header.Set(cluster.SignatureHeader, header+";sig="+b64.EncodeToString(mac))
	w := give(h, r)
	e := seen.last(t)
	require.Equal(t, http.StatusOK, w.Code, "%v", e)
	assert.Equal(t, "mirth-1", e.Node)

	answer, sig, _ := strings.Cut(w.Header().Get(cluster.SignatureHeader), ";sig=")
	toSign = "carewire cluster v1 response\n\x00\x00\x00\xc8" +
		"\x00\x00\x00\x01" + field("application/json") + "\x00\x00\x00\x00" + answer
	mac = run(t, openssl, []byte(toSign), "dgst", "-sha256", "-binary", "-mac", "HMAC",
		"-macopt", "hexkey:"+hkdf("carewire cluster v1 hmac", "32"))
	assert.Equal(t, b64.EncodeToString(mac), sig)
	assert.Contains(t, answer, ";from=node-b;to=mirth-1;")
}

// A node that is not upgraded yet must understand one that is. This header was
// made for the time at which bubbles of testing/synctest begin.
func TestASignatureOfAnOlderReleaseIsAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, seen := pair(t)
		r := post(t, "{}")
		r.Header.Set(cluster.SignatureHeader, "v1;kid=23ed832eb3c19111;ts=946684800000;nonce=tlOmOi_7B-Ys9cRUBUxaKg;from=node-a;to=node-b;digest=RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o;sig=Td7xgbbuwEsbaYVq4HSzXwifiljN02a9k0Xc1gopFP4")
		w := give(b.Handler(&echo{}), r)
		assert.Equal(t, http.StatusOK, w.Code, "%v", seen.last(t))
	})
}
