package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

var (
	fuzzRequests = flag.Int("api.requests", 2000, "how many requests are made of the API's description")
	fuzzSeed     = flag.Uint64("api.seed", 0, "of those requests; 0: another one each time")
)

// inventor makes requests of an API's description: such as it asks for, and others.
type inventor struct {
	*rand.Rand

	contract *contract
}

func pick[T any](i *inventor, from ...T) T { return from[i.IntN(len(from))] }

// odd is text that nobody asked for.
func (i *inventor) odd() string {
	return pick(i, "", " ", "\x00", "null", "-1", "0", "1e999", "99999999999999999999999", "..", "../../etc/passwd", "%00", "%2e%2e%2f", "a/b", "?", "#",
		"\xff\xfe", "\u202e", "'; DROP TABLE message; --", "<script>", "${HOME}", "{}", strings.Repeat("9", 400), strings.Repeat("x", 5000), "\r\nX-Evil: 1", "é")
}

// canary is in what messages hold, and must be in nothing else.
const canary = "KANARI7"

// known is text that may mean something here.
func (i *inventor) known(name string) string {
	switch name {
	case "channelId":
		return pick(i, "fixed", "fixed", "made", "other")
	case "destination":
		return "archive"
	case "rawData":
		return "MSH|^~\\&|" + canary
	case "startDate", "endDate":
		return pick(i, "2026-01-31T12:00:00Z", "0", "2026-01-31", "99999999999999999")
	case "sourceMapEntry":
		return "a=b"
	default:
		return fmt.Sprint(i.IntN(9))
	}
}

// text is a value of a parameter.
func (i *inventor) text(name string, s *schema) string {
	if i.IntN(6) == 0 {
		return i.odd()
	}
	if s.Type == "array" {
		s = s.Items
	}
	switch {
	case s.Enum != nil:
		return fmt.Sprint(pick(i, s.Enum...))
	case s.Type == "boolean":
		return pick(i, "true", "false")
	case s.Type == "integer":
		return fmt.Sprintf("%.0f", pick(i, 1, *s.Minimum, *s.Maximum, *s.Minimum-1, *s.Maximum+1, 20))
	}
	return i.known(name)
}

// value is one that a schema allows, or, now and then, another.
func (i *inventor) value(s *schema, name string, depth int) any {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		named := i.contract.Components.Schemas[name]
		return i.value(&named, "", depth)
	}
	if i.IntN(25) == 0 || depth > 5 {
		return pick[any](i, nil, true, 1.5, -1, 1e300, i.odd(), []any{}, map[string]any{}, []any{[]any{nil}}, map[string]any{"": nil})
	}
	switch {
	case s.Enum != nil:
		return pick(i, s.Enum...)
	case s.Type == "boolean":
		return i.IntN(2) == 0
	case s.Type == "integer":
		return i.IntN(30)
	case s.Type == "string" && s.Encoding != "":
		return pick(i, "", "TVNIfA==", "TVNI")
	case s.Type == "string" && name == "username":
		return pick(i, "viewer", "operator", fmt.Sprintf("user-%d", i.IntN(20)))
	case s.Type == "string" && strings.Contains(strings.ToLower(name), "password"):
		return pick(i, password, password, "short", strings.Repeat("p", 2000))
	case s.Type == "string":
		return pick(i, i.known(name), i.odd())
	case s.Type == "array":
		list := []any{}
		for range i.IntN(4) {
			list = append(list, i.value(s.Items, name, depth+1))
		}
		return list
	case s.Type == "object":
		m := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			// What is needed is left out rarely, and of the rest half.
			if needed := slices.Contains(s.Required, name); needed && i.IntN(16) > 0 || !needed && i.IntN(2) == 0 {
				of := s.Properties[name]
				m[name] = i.value(&of, name, depth+1)
			}
		}
		if i.IntN(8) == 0 {
			m[i.odd()] = i.odd()
		}
		return m
	}
	return pick[any](i, "x", 1, nil, []any{"x"})
}

// definitions are channels that can be had.
var definitions = []string{
	"id: made\nname: Made\nsource: {type: channel}\ndestinations: [{name: archive, type: file, directory: ../made}]\n",
	`{"id": "other", "name": "Other", "source": {"type": "channel"}, "destinations": [{"name": "copy", "type": "channel", "channelId": "fixed"}]}`,
	`{"id": "made", "name": "Made", "source": {"type": "channel"}, "destinations": [{"name": "second", "type": "file", "directory": "../made"}]}`,
}

// body is what is sent, with its type.
func (i *inventor) body(of content) (kind, text string) {
	kinds := slices.Sorted(maps.Keys(of))
	kind = pick(i, kinds...)
	s := of[kind].Schema
	switch {
	case kind == "application/xml":
		text = pick(i, "<set><string>fixed</string><string>made</string></set>", "<set/>", "<set><string>fixed", `<!DOCTYPE x [<!ENTITY e "x">]><set>&e;</set>`)
	case slices.Contains(kinds, "application/yaml"):
		text = pick(i, definitions...)
		if s != nil && i.IntN(3) == 0 {
			encoded, _ := json.Marshal(i.value(s, "", 0))
			text = string(encoded)
		}
	case kind == "application/x-www-form-urlencoded":
		form := url.Values{}
		if fields, ok := i.value(s, "", 0).(map[string]any); ok {
			for _, name := range slices.Sorted(maps.Keys(fields)) {
				form.Add(name, fmt.Sprint(fields[name]))
			}
		}
		text = form.Encode()
	case s != nil:
		encoded, _ := json.Marshal(i.value(s, "", 0))
		text = string(encoded)
	default:
		kind, text = pick(i, "text/plain", "application/xml", "application/json", "", "x"), pick(i, "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|1|P|2.5\rPID|1||"+canary+"\r", "", canary+"{}", "\x00\xff"+canary, strings.Repeat("x", 100_000))
	}
	// What nobody asked for.
	switch i.IntN(24) {
	case 0:
		text = text[:len(text)/2]
	case 1:
		text = strings.Repeat(`{"a":[`, 50_000)
	case 2:
		text = strings.Repeat("[", 100_000) + text
	case 3:
		text += text
	case 4:
		text = i.odd()
	case 5:
		text = strings.Repeat(" ", 17<<20)
	case 6, 7, 8:
		kind = pick(i, "", "text/plain", "image/png", "multipart/form-data; boundary=x", "application/json; charset=utf-16", ";;", "application/xml", "application/yaml", "application/json")
	case 9:
		text = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
	}
	return kind, text
}

// request is a target and what goes with it.
func (i *inventor) request(pattern string, op *operation) (target string, edits []edit) {
	target = pattern
	query := url.Values{}
	for _, p := range op.Parameters {
		switch {
		case p.In == "path":
			value := i.known(p.Name)
			if i.IntN(8) == 0 {
				value = i.odd()
			}
			if value == "" || value == "." || value == ".." {
				value = "x" // the path would be another one
			}
			target = strings.Replace(target, "{"+p.Name+"}", url.PathEscape(value), 1)
		case i.IntN(3) == 0:
			query.Add(p.Name, i.text(p.Name, &p.Schema))
		}
	}
	if i.IntN(40) == 0 {
		query.Add(i.odd(), i.odd())
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	if op.RequestBody != nil && i.IntN(12) > 0 {
		edits = append(edits, sends(i.body(op.RequestBody.Content)))
	}
	for _, name := range []string{"Accept", "Origin", "X-Request-ID", "Content-Encoding", "X-Strict", "X-Forwarded-For", "Sec-Fetch-Site", "Upgrade"} {
		if i.IntN(40) == 0 {
			edits = append(edits, header(name, pick(i, "true", "application/xml", "https://evil.example.org", "gzip", "websocket", "cross-site", i.odd())))
		}
	}
	return target, edits
}

// people are the users of a test, who are made anew when they were changed or removed.
type people struct {
	t     *testing.T
	site  *site
	store *users.Store
	ids   map[users.Role]string // sessions
	round int
}

// session returns one of the role that is in force.
func (p *people) session(role users.Role) string {
	if id := p.ids[role]; id != "" && request(p.site, "GET", "/api/users/current", session(id)).Code == 200 {
		for _, u := range p.store.List() {
			if u.Name == string(role) && u.Role == role {
				return id
			}
		}
	}
	ctx := p.t.Context()
	list := p.store.List()
	at := slices.IndexFunc(list, func(u users.User) bool { return u.Name == string(role) })
	if at < 0 {
		_, err := p.store.Create(ctx, string(role), password, role)
		require.NoError(p.t, err)
	} else {
		require.NoError(p.t, p.store.SetPassword(ctx, list[at].ID, password))
		if list[at].Role != role {
			require.NoError(p.t, p.store.SetRole(list[at].ID, role))
		}
	}
	w := login(p.site, string(role), password, p.elsewhere())
	require.Equal(p.t, 200, w.Code, "%s", w.Body)
	p.ids[role] = w.Header().Get("X-Session-ID")
	return p.ids[role]
}

// elsewhere is an address that nobody has had.
func (p *people) elsewhere() edit {
	p.round++
	return from(fmt.Sprintf("10.%d.%d.%d", p.round>>16&255, p.round>>8&255, p.round&255))
}

// somebody makes a request that of somebody, or of nobody.
func (p *people) somebody(i *inventor) []edit {
	switch role := pick(i, users.Admin, users.Admin, users.Admin, users.Operator, users.Viewer); i.IntN(10) {
	case 0:
		return nil
	case 1:
		return []edit{session(i.odd())}
	case 2:
		return []edit{cookie(p.session(role))}
	case 3:
		return []edit{cookie(p.session(role)), header("X-Requested-With", "test")}
	case 4:
		return []edit{header("X-Cluster-Secret", pick(i, clusterSecret, i.odd()))}
	default:
		return []edit{session(p.session(role)), header("X-Cluster-Secret", clusterSecret)}
	}
}

// Every operation of the description, asked for in all ways, answers as it is described,
// and without a failure of the server's own; and of what messages hold nothing is
// anywhere else (row 54). Run it for longer with -api.requests, and
// again with the -api.seed that it prints.
func TestEveryOperationHoldsAgainstRequestsMadeOfItsDescription(t *testing.T) {
	seed := *fuzzSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-api.seed %d", seed)
	store := everybody(t)
	book, said := new(notebook), new(bytes.Buffer)
	log := slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := open(t, t.TempDir(), api.Options{
		Users: store, Audit: book, Logger: log, Cluster: &cluster.Auth{Node: "node-1", Secret: clusterSecret, Logger: log},
	})
	s.SetPhase(api.Ready)
	i := &inventor{Rand: rand.New(rand.NewPCG(seed, 0)), contract: contractOf(t, s.Server)}
	who := &people{t: t, site: s, store: store, ids: make(map[users.Role]string)}
	type call struct{ method, pattern string }
	var calls []call
	for pattern, of := range i.contract.Paths {
		for method := range of {
			calls = append(calls, call{method, pattern})
		}
	}
	slices.SortFunc(calls, func(a, b call) int { return strings.Compare(a.pattern+a.method, b.pattern+b.method) })
	done := make(map[call]int)
	s.must(200, "POST", "/api/channels/fixed/messages", sends("text/plain", canary))
	require.Equal(t, canary, s.do("GET", "/api/channels/fixed/messages/1/content").Body.String(), "it is there to be told")
	for n := 0; n < *fuzzRequests && !t.Failed(); n++ {
		if n%len(calls) == 0 {
			_ = s.engine.DeployChannel(t.Context(), "fixed") // so that it is not stopped for the most part
		}
		c := calls[n%len(calls)]
		op := i.contract.Paths[c.pattern][c.method]
		target, edits := i.request(c.pattern, &op)
		edits = slices.Concat([]edit{who.elsewhere()}, who.somebody(i), edits)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			w := request(s, strings.ToUpper(c.method), target, edits...)
			if w.Code/100 == 2 {
				done[c]++
			}
			if w.Code >= 500 && !described5xx(c.pattern) {
				assert.Fail(t, "a failure of the server's own", "request %d, %s %.200q: %d %s", n, c.method, target, w.Code, w.Body)
			}
			if !strings.HasSuffix(c.pattern, "/content") {
				assert.NotContains(t, w.Body.String(), canary)
			}
			assert.NotContains(t, w.Body.String(), "goroutine ")
			assert.NotContains(t, w.Body.String(), s.dir, "no path of the server")
			assert.Empty(t, w.Header().Get("X-Evil"))
		}()
		select {
		case <-answered:
		case <-time.After(2 * time.Minute):
			t.Fatalf("request %d is not answered: %s %.200q", n, c.method, target)
		}
	}
	if t.Failed() {
		t.Logf("again with -api.seed %d -api.requests %d", seed, *fuzzRequests)
	}
	s.close()
	assert.NotContains(t, said.String(), "panic in the API")
	events, err := json.Marshal(book.events)
	require.NoError(t, err)
	for name, text := range map[string]string{"log": said.String(), "audit log": string(events)} {
		assert.NotEmpty(t, text, name)
		assert.NotContains(t, text, canary, name)
		assert.NotContains(t, text, password, name)
	}
	t.Logf("%d of %d operations succeeded at least once", len(done), len(calls))
	for _, c := range calls {
		if done[c] == 0 {
			t.Logf("never: %s %s", c.method, c.pattern)
		}
	}
}

// described5xx tells of what answers 5xx without a failure of its own: what asks for
// health, commands that were to tell their errors, and dispatch, which says of channels
// that are not deployed what the original does.
func described5xx(pattern string) bool {
	last := pattern[strings.LastIndex(pattern, "/")+1:]
	return strings.HasPrefix(pattern, "/api/health") || pattern == "/api/internal/dispatch" ||
		strings.HasPrefix(last, "_") && strings.HasPrefix(pattern, "/api/channels/") && last != "_requeue" && last != "_reprocess"
}
