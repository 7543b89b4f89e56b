package meshtest

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	maxRequest = 100_000_000
	minChunk   = 5_000_000
)

// limits of the header of a message, in bytes
var limits = map[string]int{
	"Mex-To": 100, "Mex-Workflowid": 300, "Mex-Filename": 300, "Mex-Localid": 300, "Mex-Subject": 500, "Mex-Partnerid": 500,
	"Mex-Content-Checksum": 100, "Mex-Content-Encrypted": 20, "Mex-Content-Compressed": 20, "Mex-Content-Type": 100, "Mex-Chunk-Range": 20,
}

func (v *visit) send() {
	h := v.r.Header
	for name, limit := range limits {
		if len(h.Get(name)) > limit {
			v.invalid(name, "too long")
			return
		}
		if strings.ContainsFunc(h.Get(name), func(r rune) bool { return r < ' ' }) {
			v.fail(http.StatusBadRequest, "06", "TRANSFER", "Malformed control file")
			return
		}
	}
	if strings.HasPrefix(h.Get("Mex-To"), "http://") || strings.HasPrefix(h.Get("Mex-Workflowid"), "http://") {
		v.fail(http.StatusBadRequest, "06", "TRANSFER", "Malformed control file")
		return
	}
	if strings.Trim(h.Get("Mex-Content-Checksum"), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 :-/") != "" {
		v.fail(http.StatusBadRequest, "Invalid checksum", "SEND", "Invalid checksum")
		return
	}
	to, workflow := strings.ToUpper(h.Get("Mex-To")), h.Get("Mex-Workflowid")
	m := &message{
		from: v.box, to: to, workflow: workflow, localID: h.Get("Mex-Localid"), status: "accepted", header: http.Header{},
		encoding: h.Get("Content-Encoding"), contentType: h.Get("Content-Type"), n: 1, chunks: make(map[int]*blob),
	}
	for name := range limits {
		if name != "Mex-Chunk-Range" && name != "Mex-To" && h.Get(name) != "" {
			m.header.Set(name, h.Get(name))
		}
	}
	_, known := v.s.o.Mailboxes[to]
	switch {
	case to == "" || workflow == "":
		v.invalid("Mex-To", "field required")
		return
	case h.Get("Mex-From") != "" && strings.ToUpper(h.Get("Mex-From")) != v.box:
		v.fail(http.StatusExpectationFailed, "07", "SEND", "Invalid From Address")
		return
	case !known:
		v.fail(http.StatusExpectationFailed, "12", "SEND", "Unregistered to address")
		return
	case v.s.o.Workflows != nil && !slices.Contains(v.s.o.Workflows, workflow):
		v.fail(http.StatusExpectationFailed, "17", "SEND", "Workflow ID not registered for mailbox")
		return
	case m.encoding != "" && m.encoding != "gzip":
		v.fail(http.StatusUnprocessableEntity, "UnsupportedContentEncoding", "SEND", "Unsupported content encoding")
		return
	}
	if h.Get("Mex-Chunk-Range") != "" {
		i, n, ok := chunkRange(h.Get("Mex-Chunk-Range"))
		if !ok || i != 1 {
			v.fail(http.StatusExpectationFailed, "InvalidHeaderChunks", "SEND", "Invalid chunk range")
			return
		}
		m.n = n
	}
	b, ok := v.body(m, 1)
	if !ok {
		return
	}
	if m.chunks[1] = b; m.n > 1 {
		m.status = "uploading"
	}
	v.s.mu.Lock()
	v.s.newLocked(m)
	v.s.mu.Unlock()
	if v.v1 {
		v.json(http.StatusAccepted, map[string]string{"messageID": m.id})
		return
	}
	v.json(http.StatusAccepted, map[string]string{"message_id": m.id})
}

func chunkRange(s string) (i, n int, ok bool) {
	first, last, _ := strings.Cut(s, ":")
	i, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	n, err = strconv.Atoi(last)
	return i, n, err == nil && i >= 1 && i <= n
}

// body stores the content of a chunk, or answers why it is not taken.
func (v *visit) body(m *message, i int) (*blob, bool) {
	b, err := v.s.take(v.r.Body, maxRequest)
	switch {
	case errors.Is(err, errTooLarge):
		v.w.Header().Set("Content-Type", "text/html")
		v.w.WriteHeader(http.StatusRequestEntityTooLarge)
		return nil, false
	case err != nil:
		abort() // the client is gone, or the disk is full
	case b.size == 0:
		v.fail(http.StatusExpectationFailed, "02", "COLLECT", "Data file is missing or inaccessible")
		return nil, false
	case i < m.n && !v.s.o.SmallChunks && m.encoding == "" && b.size < minChunk:
		v.fail(http.StatusExpectationFailed, "InvalidHeaderChunks", "SEND", "A chunk has fewer than 5 MB")
		return nil, false
	}
	return b, true
}

func (v *visit) sendChunk() {
	v.s.mu.Lock()
	m := v.s.messages[v.args[0]]
	mine := m != nil && m.from == v.box && !m.report
	final := mine && m.status != "uploading"
	v.s.mu.Unlock()
	i, n, ok := chunkRange(v.r.Header.Get("Mex-Chunk-Range"))
	switch {
	case !mine:
		v.fail(http.StatusNotFound, "20", "RECEIVE", "Message does not exist")
		return
	case final:
		v.fail(http.StatusLocked, "Message already accepted", "SEND", "Message already accepted")
		return
	case !ok || n != m.n || i < 2 || i != v.chunk():
		v.fail(http.StatusExpectationFailed, "InvalidHeaderChunks", "SEND", "Invalid chunk range")
		return
	case v.r.Header.Get("Content-Encoding") != m.encoding:
		v.fail(http.StatusExpectationFailed, "UnsupportedContentEncoding", "SEND", "Content encoding changed")
		return
	}
	b, ok := v.body(m, i)
	if !ok {
		return
	}
	v.s.mu.Lock()
	m.chunks[i] = b
	if i == n {
		m.status = "accepted"
	}
	v.s.mu.Unlock()
	if v.v1 {
		v.json(http.StatusAccepted, map[string]any{"messageID": m.id, "blockID": i})
		return
	}
	v.json(http.StatusAccepted, nil) // which is how NHS's sandbox does it
}

// mine returns a message of the inbox, or answers why there is none.
func (v *visit) mine() (m message, ok bool) {
	v.s.mu.Lock()
	stored := v.s.messages[v.args[0]]
	if stored != nil {
		m = *stored
	}
	v.s.mu.Unlock()
	switch {
	case stored == nil:
		v.fail(http.StatusNotFound, "20", "RECEIVE", "Message does not exist")
	case m.to != v.box:
		v.fail(http.StatusForbidden, "", "", "The message is another mailbox's")
	case m.status == "accepted", v.op == "acknowledge" && m.status != "uploading":
		return m, true
	default:
		v.fail(http.StatusGone, "", "", "The message is "+m.status)
	}
	return m, false
}

func (v *visit) acknowledge() {
	m, ok := v.mine()
	if !ok {
		return
	}
	v.s.mu.Lock()
	if stored := v.s.messages[m.id]; stored != nil && stored.status == "accepted" {
		stored.status = "acknowledged"
	}
	v.s.mu.Unlock()
	if v.v1 {
		v.json(http.StatusOK, map[string]string{"messageId": m.id})
		return
	}
	v.w.WriteHeader(http.StatusOK)
}

func (v *visit) download() {
	m, ok := v.mine()
	if !ok {
		return
	}
	i := max(1, v.chunk())
	h := v.w.Header()
	maps.Copy(h, m.header)
	for name, value := range map[string]string{
		"Mex-From": m.from, "Mex-To": m.to, "Mex-Workflowid": m.workflow, "Mex-Messageid": m.id, "Mex-Messagetype": "DATA",
		"Mex-Chunk-Range": fmt.Sprintf("%d:%d", i, m.n), "Mex-Total-Chunks": strconv.Itoa(m.n), "Mex-Addresstype": "ALL",
		"Mex-Version": "1.0", "Mex-Statustimestamp": m.at.Format("20060102150405"),
	} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if m.report {
		h.Set("Mex-Messagetype", "REPORT")
		h.Set("Mex-Statussuccess", "ERROR")
		h.Set("Content-Length", "0")
		v.w.WriteHeader(http.StatusOK)
		return
	}
	v.s.mu.Lock()
	b := v.s.messages[m.id].chunks[i]
	v.s.mu.Unlock()
	if b == nil {
		status := http.StatusNotFound
		if i > m.n {
			status = http.StatusNotAcceptable
		}
		v.fail(status, "20", "RECEIVE", "Chunk does not exist")
		return
	}
	h.Set("Mex-Statuscode", "00")
	h.Set("Mex-Statusevent", "TRANSFER")
	h.Set("Mex-Statussuccess", "SUCCESS")
	h.Set("Content-Type", "application/octet-stream")
	if m.contentType != "" && m.n == 1 {
		h.Set("Content-Type", m.contentType)
	}
	v.content(&m, b, i)
}

// content writes a chunk, compressed if the client takes that.
func (v *visit) content(m *message, b *blob, i int) {
	rc, err := b.open()
	if err != nil {
		abort()
	}
	defer rc.Close()
	h := v.w.Header()
	zip := strings.Contains(v.r.Header.Get("Accept-Encoding"), "gzip")
	stored := m.encoding == "gzip"
	status := http.StatusOK
	if i < m.n {
		status = http.StatusPartialContent
	}
	var source io.Reader = rc
	switch {
	case stored && !zip:
		if source, err = gzip.NewReader(rc); err != nil {
			abort()
		}
	case stored, zip && !v.s.o.NoGzip:
		h.Set("Content-Encoding", "gzip")
		h.Set("Mex-Content-Compressed", "Y") // because of the encoding alone, as the service does
	}
	onTheFly := !stored && h.Get("Content-Encoding") != ""
	if !onTheFly && (!stored || zip) {
		h.Set("Content-Length", strconv.FormatInt(b.size, 10))
	}
	v.w.WriteHeader(status)
	if v.op == "head" {
		return
	}
	var out io.Writer = struct{ io.Writer }{v.w}
	if onTheFly {
		z := gzip.NewWriter(v.w)
		defer z.Close()
		out = z
	}
	_, _ = io.CopyBuffer(out, struct{ io.Reader }{source}, make([]byte, 64<<10)) // a client that is gone wants no more
}

func (v *visit) count() {
	v.s.mu.Lock()
	n := len(v.s.waitingLocked(v.box, ""))
	v.s.mu.Unlock()
	if v.v1 {
		v.json(http.StatusOK, map[string]any{"count": n, "internalID": "0", "allResultsIncluded": true})
		return
	}
	v.json(http.StatusOK, map[string]any{"count": n})
}

func (v *visit) inbox() {
	q := v.r.URL.Query()
	limit := 500
	if text := q.Get("max_results"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 10 || n > 5000 {
			v.invalid("max_results", "must be from 10 to 5000")
			return
		}
		limit = n
	}
	v.s.mu.Lock()
	ids := v.s.waitingLocked(v.box, q.Get("workflow_filter"))
	v.s.mu.Unlock()
	total, from := len(ids), q.Get("continue_from")
	if from != "" && !strings.HasPrefix(from, "after/+") {
		v.invalid("continue_from", "is not one of this server's")
		return
	}
	for from != "" && len(ids) > 0 && ids[0] <= strings.TrimPrefix(from, "after/+") {
		ids = ids[1:]
	}
	if v.v1 {
		v.json(http.StatusOK, map[string]any{"messages": ids[:min(limit, len(ids))]})
		return
	}
	links := map[string]string{"self": v.r.URL.RequestURI()}
	if len(ids) > limit {
		ids = ids[:limit]
		next := url.Values{}
		maps.Copy(next, q)
		next.Set("continue_from", "after/+"+ids[limit-1]) // with what has to survive being passed on
		links["next"] = v.r.URL.Path + "?" + next.Encode()
	}
	v.json(http.StatusOK, map[string]any{"messages": ids, "links": links, "approx_inbox_count": total})
}

// naive is how NHS's sandbox writes times: in UTC, without saying so.
const naive = "2006-01-02T15:04:05.000000"

func (v *visit) track() {
	var found []message
	v.s.mu.Lock()
	for _, id := range v.s.order {
		m := v.s.messages[id]
		byID := len(v.args) == 0 && id == v.r.URL.Query().Get("messageID")
		if m.from == v.box && !m.report && (byID || len(v.args) == 1 && m.localID == v.args[0]) {
			found = append(found, *m)
		}
	}
	v.s.mu.Unlock()
	switch len(found) {
	case 0:
		v.fail(http.StatusNotFound, "20", "RECEIVE", "Message does not exist")
		return
	case 1:
	default:
		v.fail(http.StatusMultipleChoices, "", "", "The local id is not unique")
		return
	}
	m := found[0]
	if v.v1 {
		v.json(http.StatusOK, map[string]any{
			"messageId": m.id, "localId": m.localID, "workflowId": m.workflow, "fileName": m.header.Get("Mex-Filename"),
			"recipient": m.to, "status": strings.ToUpper(m.status[:1]) + m.status[1:], "statusSuccess": "SUCCESS",
			"uploadTimestamp": m.at.Format("20060102150405"), "expiryTime": m.at.Add(expiry).Format("20060102150405"),
		})
		return
	}
	v.json(http.StatusOK, map[string]any{
		"message_id": m.id, "local_id": m.localID, "workflow_id": m.workflow, "filename": m.header.Get("Mex-Filename"),
		"recipient": m.to, "recipient_name": "mailbox " + m.to, "recipient_ods_code": nil, "recipient_org_code": nil, "recipient_org_name": nil,
		"status": m.status, "status_success": m.status != "undeliverable", "status_event": "TRANSFER", "status_code": "00", "status_description": nil,
		"status_timestamp": m.at.Format(naive), "upload_timestamp": m.at.Format(naive), "expiry_time": m.at.Add(expiry).Format(naive),
	})
}
