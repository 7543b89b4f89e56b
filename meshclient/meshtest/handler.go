package meshtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	window = 2 * time.Hour // around the server's time, in which a token is good

	maxRequests = 100_000 // that are remembered
)

// A visit is one request on its way through the server.
type visit struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	v1   bool
	bad  bool // Accept asks for no version that could be
	op   string
	box  string   // in upper case; "" where there is none
	args []string // what the path has beside the mailbox
}

// serve answers every request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	v := &visit{s: s, w: w, r: r}
	v.version()
	v.route()
	seen := Request{
		Op: v.op, Method: r.Method, Mailbox: v.box, Authorization: r.Header.Get("Authorization"),
		Accept: r.Header.Get("Accept"), Header: r.Header.Clone(), Chunk: v.chunk(),
	}
	s.mu.Lock()
	fault := s.faultLocked(&seen)
	at, now := len(s.requests), s.nowLocked()
	if at < maxRequests {
		s.requests = append(s.requests, seen)
	}
	s.mu.Unlock()
	w.Header().Set("Date", now.Format(http.TimeFormat))
	v.w = &noting{ResponseWriter: w, s: s, at: at}
	out, after := fault.apply(v.w)
	if out == nil {
		return
	}
	v.w = out
	v.answer()
	after()
}

// version finds out which version of the API is asked for. A number that there is not
// is the newest.
func (v *visit) version() {
	_, number, asked := strings.Cut(v.r.Header.Get("Accept"), "application/vnd.mesh.v")
	number, _, _ = strings.Cut(number, "+")
	n, err := strconv.Atoi(number)
	v.v1 = !asked || n == 1
	v.bad = asked && (err != nil || n < 1)
}

// noting is a writer that notes the status of the answer.
type noting struct {
	http.ResponseWriter
	s     *Server
	at    int
	noted bool
}

func (n *noting) WriteHeader(status int) {
	if !n.noted && n.at < maxRequests {
		n.noted = true
		n.s.mu.Lock()
		n.s.requests[n.at].Status = status
		n.s.mu.Unlock()
	}
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }

// route finds out what is asked for.
func (v *visit) route() {
	v.op = "unknown"
	escaped, ok := strings.CutPrefix(v.r.URL.EscapedPath(), "/messageexchange/")
	if !ok {
		return
	}
	parts := strings.Split(escaped, "/")
	for i, p := range parts {
		if text, err := url.PathUnescape(p); err == nil {
			parts[i] = text
		}
	}
	m, n := v.r.Method, len(parts)
	switch {
	case m == http.MethodGet && n == 1 && parts[0] == "_ping":
		v.op = "ping"
		return
	case m == http.MethodGet && n == 3 && parts[0] == "endpointlookup":
		v.op, v.args = "lookup", parts[2:]
		return
	case m == http.MethodGet && n == 2 && parts[0] == "workflowsearch":
		v.op, v.args = "lookup", parts[1:]
		return
	}
	v.box = strings.ToUpper(parts[0])
	v.args = parts[1:]
	switch at := strings.Join(parts[1:min(n, 3)], "/"); {
	case (m == http.MethodPost || m == http.MethodGet) && n == 1:
		v.op = "handshake"
	case m == http.MethodGet && n == 2 && at == "count":
		v.op = "count"
	case m == http.MethodGet && n == 2 && at == "inbox":
		v.op = "inbox"
	case m == http.MethodPost && n == 2 && at == "outbox":
		v.op = "send"
	case m == http.MethodGet && (n == 3 || n == 4) && at == "outbox/tracking":
		v.op, v.args = "track", parts[3:]
	case m == http.MethodPost && n == 4 && parts[1] == "outbox":
		v.op, v.args = "chunk", parts[2:]
	case m == http.MethodHead && n == 3 && parts[1] == "inbox":
		v.op, v.args = "head", parts[2:]
	case m == http.MethodGet && (n == 3 || n == 4) && parts[1] == "inbox":
		v.op, v.args = "download", parts[2:]
	case m == http.MethodPut && n == 5 && parts[1] == "inbox" && parts[3] == "status" && parts[4] == "acknowledged":
		v.op, v.args = "acknowledge", parts[2:3]
	}
}

// chunk returns which chunk is asked for, 0 if none.
func (v *visit) chunk() int {
	switch {
	case v.op != "download" && v.op != "chunk":
		return 0
	case len(v.args) < 2:
		return 1
	}
	n, err := strconv.Atoi(v.args[1])
	if err != nil {
		return -1
	}
	return n
}

func (v *visit) answer() {
	switch {
	case v.s.o.CertificateByHTTP && !v.certified():
		v.w.Header().Set("Content-Type", "text/html")
		v.w.WriteHeader(http.StatusBadRequest)
		_, _ = v.w.Write([]byte(NoCertificate)) // whoever is gone does not want it
		return
	case v.bad:
		v.fail(http.StatusBadRequest, "", "", "Invalid Accept header")
		return
	case v.op == "unknown":
		v.json(http.StatusNotFound, map[string]any{"message": "no such call", "internal_id": "0"})
		return
	case v.op == "ping":
		v.json(http.StatusOK, map[string]any{"internalID": "0"})
		return
	case v.op == "lookup":
		v.lookup()
		return
	}
	if why := v.refusal(); why != "" {
		v.fail(http.StatusForbidden, "", "", why)
		return
	}
	v.s.expire()
	switch v.op {
	case "handshake":
		v.handshake()
	case "count":
		v.count()
	case "inbox":
		v.inbox()
	case "head", "download":
		v.download()
	case "acknowledge":
		v.acknowledge()
	case "send":
		v.send()
	case "chunk":
		v.sendChunk()
	case "track":
		v.track()
	}
}

// certified tells whether the client has shown a good certificate.
func (v *visit) certified() bool {
	if v.r.TLS == nil || len(v.r.TLS.PeerCertificates) == 0 {
		return false
	}
	_, err := v.r.TLS.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: v.s.pki.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

// refusal returns why a token is not taken, "" if it is. It is then used up.
func (v *visit) refusal() string {
	token, ok := strings.CutPrefix(v.r.Header.Get("Authorization"), "NHSMESH ")
	parts := strings.Split(strings.TrimSpace(token), ":")
	if !ok || len(parts) != 5 {
		return "Authorization is not a token"
	}
	box, nonce, count, when, hash := parts[0], parts[1], parts[2], parts[3], parts[4]
	password, known := v.s.o.Mailboxes[box]
	mac := hmac.New(sha256.New, []byte(v.s.o.HashSecret))
	_, _ = mac.Write([]byte(box + ":" + nonce + ":" + count + ":" + password + ":" + when)) // to memory
	sum, err := hex.DecodeString(hash)
	if err != nil || !hmac.Equal(sum, mac.Sum(nil)) || !known || box != v.box {
		return "Mailbox id, password or shared key are wrong"
	}
	at, err := time.Parse("200601021504", when)
	if err != nil {
		return "The time of the token is not one"
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	now := v.s.nowLocked()
	if off := now.Sub(at).Abs(); off > window {
		return "The token is from another time"
	}
	if v.s.disabled[box] {
		return "The mailbox is disabled"
	}
	for t, used := range v.s.used {
		if now.Sub(used) > 2*window+time.Minute { // no token can be as old
			delete(v.s.used, t)
		}
	}
	once := box + ":" + nonce + ":" + count
	if _, again := v.s.used[once]; again {
		return "The token was used before"
	}
	v.s.used[once] = now
	return ""
}

// json answers with JSON. A list and a track of version 2 have its type, the other
// answers have none of a version.
func (v *visit) json(status int, body any) {
	contentType := "application/json"
	if !v.v1 && status == http.StatusOK && (v.op == "inbox" || v.op == "track") {
		contentType = "application/vnd.mesh.v2+json"
	}
	v.w.Header().Set("Content-Type", contentType)
	v.w.WriteHeader(status)
	text, err := json.Marshal(body)
	if err != nil {
		abort() // which nothing that is answered here is
	}
	_, _ = v.w.Write(text) // whoever is gone does not want it
}

// fail answers with an error in the form of the version that was asked for.
func (v *visit) fail(status int, code, event, msg string) {
	if v.v1 {
		v.json(status, map[string]any{"errorEvent": event, "errorCode": code, "errorDescription": msg})
		return
	}
	v.json(status, map[string]any{"internal_id": "0", "detail": []map[string]string{{"event": event, "code": code, "msg": msg}}})
}

// invalid answers as to arguments that are not of the right form.
func (v *visit) invalid(where, msg string) {
	v.json(http.StatusBadRequest, map[string]any{"detail": []map[string]any{{"loc": []string{"query", where}, "msg": msg, "type": "value_error"}}})
}

func (v *visit) handshake() {
	for _, name := range []string{"Mex-Clientversion", "Mex-Osname", "Mex-Osversion"} {
		if v.r.Header.Get(name) == "" {
			v.invalid(name, "field required")
			return
		}
	}
	if v.v1 {
		v.json(http.StatusOK, map[string]string{"mailboxId": v.box})
		return
	}
	v.w.WriteHeader(http.StatusOK)
}

// lookup finds all mailboxes for a workflow, which no token is needed for.
func (v *visit) lookup() {
	type found map[string]string
	results := []found{}
	if workflow := v.args[0]; v.s.o.Workflows == nil || slices.Contains(v.s.o.Workflows, workflow) {
		for _, box := range v.s.boxes() {
			if v.v1 && strings.Contains(v.r.URL.Path, "/endpointlookup/") {
				results = append(results, found{"address": box, "description": "mailbox " + box, "endpoint_type": "MESH"})
			} else {
				results = append(results, found{"mailbox_id": box, "mailbox_name": "mailbox " + box})
			}
		}
	}
	if v.v1 && strings.Contains(v.r.URL.Path, "/endpointlookup/") {
		v.json(http.StatusOK, map[string]any{"query_id": "0", "results": results})
		return
	}
	v.json(http.StatusOK, map[string]any{"results": results})
}
