package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/carewire/carewire/cluster"
)

// A handler that only those reach who have the cluster's secret.
func Example() {
	os.Setenv("MIRTH_CLUSTER_SECRET", "f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E=") // openssl rand -base64 32
	dispatch := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"messageId":1,"status":"SENT"}`)
	})

	auth := &cluster.Auth{Node: "node-b", Secret: cluster.Secret(os.Getenv("MIRTH_CLUSTER_SECRET"))}
	if err := auth.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/api/internal/", auth.Handler(dispatch))
	node := httptest.NewServer(mux)
	defer node.Close()

	for _, secret := range []string{"", "guessed", os.Getenv("MIRTH_CLUSTER_SECRET")} {
		r, err := http.NewRequest(http.MethodPost, node.URL+"/api/internal/dispatch", strings.NewReader("{}"))
		if err != nil {
			fmt.Println(err)
			return
		}
		if secret != "" {
			r.Header.Set(cluster.Header, secret)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, string(body))
	}
	http.DefaultClient.CloseIdleConnections()

	// Output:
	// 403 {"error":"Invalid cluster secret"}
	// 403 {"error":"Invalid cluster secret"}
	// 200 {"messageId":1,"status":"SENT"}
}

// One node asks another: the request and the answer are signed, and the secret
// stays where it is.
func ExampleAuth_Do() {
	const secret = "f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E="
	b := &cluster.Auth{Node: "node-b", Secret: secret, SignedOnly: true, Observe: func(e cluster.Event) {
		if e.Kind == cluster.Accepted {
			fmt.Println("node-b takes a request of", e.Node)
		}
	}}
	server := httptest.NewTLSServer(b.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // all of it is there, and is what was signed
		fmt.Fprintf(w, "%d bytes", len(body))
	})))
	defer server.Close()

	a := &cluster.Auth{Node: "node-a", Secret: secret}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, server.URL+"/api/internal/dispatch", strings.NewReader("MSH|..."))
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := a.Do(server.Client(), r, "node-b")
	if failed, ok := errors.AsType[*cluster.SendError](err); ok {
		fmt.Println(err, failed.MaybeDelivered(), failed.Retryable())
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println("node-b says", resp.StatusCode, string(body))

	// Output:
	// node-b takes a request of node-a
	// node-b says 200 7 bytes
}

// A program with a sender of its own signs, sends, and verifies.
func ExampleAuth_Authorize() {
	const secret = "f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E="
	b := &cluster.Auth{Node: "node-b", Secret: secret}
	server := httptest.NewTLSServer(b.Handler(http.NotFoundHandler()))
	defer server.Close()
	sender := server.Client() // or anything else that sends requests

	a := &cluster.Auth{Node: "node-a", Secret: secret}
	for range 2 { // each try is signed anew
		r, err := http.NewRequest(http.MethodGet, server.URL+"/api/internal/status", nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := a.Authorize(r, "node-b"); err != nil {
			fmt.Println(err)
			return
		}
		resp, err := sender.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := a.Verify(resp); err != nil {
			fmt.Println("not from node-b:", err)
			return
		}
		defer resp.Body.Close()
		fmt.Println("from node-b:", resp.Status)
	}

	// Output:
	// from node-b: 404 Not Found
	// from node-b: 404 Not Found
}

// The first step of changing the secret: the next one is accepted, and not sent
// yet.
func ExampleAuth_SetSecrets() {
	const (
		june = "f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E="
		july = "Kq8vRt1zWm3cXy6bNj9pLs2dFg5hJk7aQe4uIo0iTwY="
	)
	auth := &cluster.Auth{Node: "node-a", Secret: june, Observe: func(e cluster.Event) { fmt.Println(e) }}
	if err := auth.SetSecrets(june, july); err != nil {
		fmt.Println(err)
	}
	if err := auth.SetSecrets("changeme"); err != nil {
		fmt.Println(err)
	}

	// Output:
	// secrets loaded generation=1 key=23ed832eb3c19111 primary=true accepted=23ed832eb3c19111
	// secrets loaded generation=2 key=23ed832eb3c19111 primary=true accepted=23ed832eb3c19111,d7d8c73bafdf99ff
	// cluster: secret: the secret can be guessed: make one with `openssl rand -base64 32` (it has the words of a placeholder)
}

// A file has one secret in a line, the one that is sent first.
func ExampleAuth_secretFile() {
	dir, err := os.MkdirTemp("", "cluster")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file := dir + "/cluster-secret"
	text := "# sent\nf2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E=\n# accepted too\nKq8vRt1zWm3cXy6bNj9pLs2dFg5hJk7aQe4uIo0iTwY=\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	auth := &cluster.Auth{Node: "node-a", SecretFile: file}
	fmt.Println(auth.Validate())
	status := auth.Status()
	fmt.Println("sends", status.KeyID, "and accepts", status.Accepted)

	// Output:
	// <nil>
	// sends 23ed832eb3c19111 and accepts [23ed832eb3c19111 d7d8c73bafdf99ff]
}
