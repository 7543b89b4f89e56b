// Package page is the engine's page: what a person sees who opens the API's address in
// a browser.
//
// It is HTML, a style sheet and ES modules, written by hand, embedded, and sent as
// they are: there is nothing to build. The page makes requests to its own origin alone,
// and does nothing that the API would not let the same person do with curl.
//
// # What comes from others
//
// Names, errors, log lines and the content of messages are put into the page as text.
// files/dom.js is the only place that makes elements, and knows no way to make one out
// of markup. The Content-Security-Policy says so to the browser as well: scripts and
// styles are the page's own files, and Trusted Types without any policy make an
// assignment of markup an error.
//
// # Patient data
//
// Lists hold none. The content of a message is fetched when somebody asks for it, by a
// route that writes the asking into the audit log first, and forgotten when it is
// closed.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed files
var embedded embed.FS

// policy is the page's Content-Security-Policy (Content Security Policy Level 3, and
// Trusted Types). connect-src has the WebSockets of the same origin, too.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types are those of the files, by the end of their names. A browser that is told
// nosniff runs and applies nothing that has another.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// file is one file as it is sent.
type file struct {
	kind, etag string
	content    []byte
}

// files are by the path of their URL. Not to be changed.
var files = load()

// load cannot fail in a program that was built: a test calls Paths.
func load() map[string]file {
	all := make(map[string]file)
	names, err := fs.Glob(embedded, "files/*")
	if err != nil {
		panic(fmt.Sprintf("page: %v", err))
	}
	for _, name := range names {
		content, err := embedded.ReadFile(name)
		kind, known := types[path.Ext(name)]
		if err != nil || !known {
			panic(fmt.Sprintf("page: %s: no file of a known type: %v", name, err))
		}
		sum := sha256.Sum256(content)
		url := "/page/" + path.Base(name)
		if path.Base(name) == "index.html" {
			url = "/{$}"
		}
		all[url] = file{kind, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, content}
	}
	return all
}

// Paths returns the patterns of what there is, as in http.ServeMux.
func Paths() []string { return slices.Sorted(maps.Keys(files)) }

// ServeHTTP answers with the file that a request names. Browsers keep it and ask each
// time whether it is still the same, so that a new version of the engine is a new page
// at once.
func ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path
	if name == "/" {
		name = "/{$}"
	}
	f, ok := files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	if slices.Contains(strings.Split(strings.ReplaceAll(r.Header.Get("If-None-Match"), " ", ""), ","), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	h.Set("Content-Length", strconv.Itoa(len(f.content)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(f.content) // the client has gone
	}
}
