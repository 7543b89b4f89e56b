package cluster

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"time"
)

// tooLarge is what a peer gets in place of an answer over the limit. It is
// signed: the handler has done what it does.
const tooLarge = `{"error":"The answer is too large to be signed"}`

// A signedWriter holds a handler's answer back until all of it can be signed. It
// belongs to the handler's goroutine.
type signedWriter struct {
	w      http.ResponseWriter
	limit  int64
	status int // 0 until the handler has set it
	body   []byte
	cut    bool // the handler wrote more than limit
}

// Header returns the header that will be sent.
func (s *signedWriter) Header() http.Header { return s.w.Header() }

// WriteHeader sets the status. Informational ones are not passed on.
func (s *signedWriter) WriteHeader(status int) {
	if s.status == 0 && status >= http.StatusOK {
		s.status = status
	}
}

// Write keeps p. Over the limit it fails with a *http.MaxBytesError, and what
// was written is given up.
func (s *signedWriter) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	if !hasBody(s.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if s.cut || int64(len(s.body))+int64(len(p)) > s.limit {
		s.cut, s.body = true, nil
		return 0, &http.MaxBytesError{Limit: s.limit}
	}
	s.body = append(s.body, p...)
	return len(p), nil
}

// hasBody reports whether an answer with a status can have a body (RFC 9110,
// section 6.4.1).
func hasBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// send signs the answer and sends it. It reports whether that had to be another
// than the handler's.
func (s *signedWriter) send(k *key, sig *signature, method string) (cut bool) {
	s.WriteHeader(http.StatusOK) // if the handler has not
	h := s.w.Header()
	if s.cut {
		s.status, s.body = http.StatusInternalServerError, []byte(tooLarge)
		h.Del("Content-Encoding")
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	if hasBody(s.status) {
		h.Set("Content-Length", strconv.Itoa(len(s.body)))
	}
	if s.status == http.StatusNotModified {
		h.Del("Content-Type") // net/http would, after the signature
	}
	// net/http would find the type of a body itself, but after the signature.
	if _, set := h["Content-Type"]; !set && len(s.body) > 0 && h.Get("Content-Encoding") == "" {
		h.Set("Content-Type", http.DetectContentType(s.body))
	}
	body := s.body
	if method == http.MethodHead {
		body = nil // what the peer will see
	}
	sig.millis = time.Now().UnixMilli()
	sig.digest = sha256.Sum256(body)
	sig.mac = k.responseMAC(sig, s.status, h)
	h.Set(SignatureHeader, sig.String())
	s.w.WriteHeader(s.status)
	if len(body) > 0 {
		_, _ = s.w.Write(body) // a peer that is gone will send again
	}
	return s.cut
}
