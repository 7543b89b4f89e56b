package meshclient

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tokenTime is the layout of a token's time, to the minute and in UTC.
const tokenTime = "200601021504"

// Authorization returns the value of the Authorization header that a nonce, its
// count and a time make:
//
//	NHSMESH mailbox:nonce:count:yyyyMMddHHmm:hash
//
// where hash is the HMAC-SHA256, with the hash secret as key and in hexadecimal,
// of mailbox:nonce:count:password:yyyyMMddHHmm. A Client makes one for every
// attempt; this is for those who have to make one by hand, or to check one. Each
// may be used once, and within two hours of its time.
func Authorization(mailbox, password, hashSecret, nonce string, count int, at time.Time) string {
	n, when := strconv.Itoa(count), at.UTC().Format(tokenTime)
	mac := hmac.New(sha256.New, []byte(hashSecret))
	_, _ = mac.Write([]byte(strings.Join([]string{mailbox, nonce, n, password, when}, ":"))) // to memory
	return "NHSMESH " + strings.Join([]string{mailbox, nonce, n, when, hex.EncodeToString(mac.Sum(nil))}, ":")
}

// authorize gives an attempt a token of its own. Nothing is shared between
// attempts, clients or machines, so that no two can make the same one.
func (c *Client) authorize(r *http.Request) error {
	r.Header.Set("Authorization", Authorization(c.conf.Mailbox, c.conf.Password, c.conf.HashSecret, newUUID(), 0, time.Now()))
	return nil
}

// newUUID returns a random UUID (RFC 9562, section 5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // which never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
