package page_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/page"
)

func get(method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	page.ServeHTTP(w, r)
	return w
}

func urls() []string {
	var list []string
	for _, pattern := range page.Paths() {
		list = append(list, strings.TrimSuffix(pattern, "{$}"))
	}
	return list
}

func TestEveryFileHasItsTypeAndThePolicy(t *testing.T) {
	t.Parallel()
	for _, url := range urls() {
		w := get(http.MethodGet, url)
		require.Equal(t, 200, w.Code, url)
		h := w.Header()
		policy := h.Get("Content-Security-Policy")
		assert.True(t, strings.HasPrefix(policy, "default-src 'none'; "), url)
		assert.NotContains(t, policy, "unsafe", url)
		for directive := range strings.SplitSeq(policy, "; ") {
			assert.Regexp(t, `^[a-z-]+ ('none'|'self'|'script')$`, directive, "its own origin at most")
		}
		assert.Contains(t, policy, "frame-ancestors 'none'")
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		switch {
		case url == "/":
			assert.Equal(t, "text/html; charset=utf-8", h.Get("Content-Type"))
		case strings.HasSuffix(url, ".js"):
			assert.Equal(t, "text/javascript; charset=utf-8", h.Get("Content-Type"))
		case strings.HasSuffix(url, ".css"):
			assert.Equal(t, "text/css; charset=utf-8", h.Get("Content-Type"))
		default:
			assert.Equal(t, "image/svg+xml", h.Get("Content-Type"), url)
		}
	}
}

func TestAFileThatTheBrowserHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	w := get(http.MethodGet, "/page/app.js")
	assert.Equal(t, "no-cache", w.Header().Get("Cache-Control"), "kept, and asked for each time")
	tag := w.Header().Get("ETag")
	require.NotEmpty(t, tag)
	again := get(http.MethodGet, "/page/app.js", "If-None-Match", `"another", `+tag)
	assert.Equal(t, 304, again.Code)
	assert.Zero(t, again.Body.Len())
	assert.NotEmpty(t, again.Header().Get("Content-Security-Policy"))
	assert.Equal(t, 200, get(http.MethodGet, "/page/app.js", "If-None-Match", `"another"`).Code)
	head := get(http.MethodHead, "/")
	assert.Equal(t, 200, head.Code)
	assert.Zero(t, head.Body.Len())
	assert.Equal(t, 404, get(http.MethodGet, "/page/index.html").Code)
	assert.Equal(t, 404, get(http.MethodGet, "/page/../page.go").Code)
}

// What would let a name or a message become markup or a script is nowhere in the files,
// nor is anything of another host.
func TestFilesHaveNoWayToMakeMarkupOfText(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTMLUnsafe|createContextualFragment|\beval\(|new Function|javascript:|localStorage|sessionStorage|<script>| style=| on[a-z]+="`)
	foreign := regexp.MustCompile(`(?i)(?:https?|wss?)://[^$]`)
	for _, url := range urls() {
		text := get(http.MethodGet, url).Body.String()
		assert.Empty(t, forbidden.FindAllString(text, -1), url)
		for _, found := range foreign.FindAllStringIndex(text, -1) {
			assert.True(t, strings.HasPrefix(text[found[0]:], "http://www.w3.org/2000/svg"), "%s: %.60s", url, text[found[0]:])
		}
	}
}

// Each module that another one imports is there, under that name.
func TestImportedModulesAreThere(t *testing.T) {
	t.Parallel()
	known := make(map[string]bool)
	for _, url := range urls() {
		known[url] = true
	}
	for _, url := range urls() {
		text := get(http.MethodGet, url).Body.String()
		for _, m := range regexp.MustCompile(`from '\./([^']+)'|(?:src|href)="(/page/[^"]+)"`).FindAllStringSubmatch(text, -1) {
			name := m[2]
			if m[1] != "" {
				name = "/page/" + m[1]
			}
			assert.True(t, known[name], "%s needs %s", url, name)
		}
	}
}
