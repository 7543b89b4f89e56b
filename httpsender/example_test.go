package httpsender_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/carewire/carewire/httpsender"
)

// Each attempt gets a token of its own, and a server that is busy is asked again.
func Example() {
	attempts := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if attempts++; attempts == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		order, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "took %s", order)
	}))
	defer server.Close()

	used := make(map[string]bool)
	sender := &httpsender.Sender{
		Retry: httpsender.Retry{MinBackoff: time.Millisecond},
		BeforeAttempt: func(r *http.Request) error {
			token := rand.Text()
			used[token] = true
			r.Header.Set("X-Token", token)
			return nil
		},
	}
	defer sender.Close()

	ctx := context.Background()
	body := httpsender.Bytes("text/plain", []byte("an order"))
	req, err := httpsender.NewRequest(ctx, http.MethodPost, server.URL+"/orders", body)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := sender.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(answer), err)
	fmt.Println(len(used), "tokens")
	// Output:
	// 202 took an order <nil>
	// 2 tokens
}

// A queue acts on the outcome: what is Unknown may have been done already.
func ExampleCheck() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusUnprocessableEntity)
		case "/broken":
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer server.Close()
	sender := &httpsender.Sender{}
	defer sender.Close()

	deliver := func(path string) error {
		body := httpsender.Bytes("text/plain", []byte("an order"))
		req, err := httpsender.NewRequest(context.Background(), http.MethodPost, server.URL+path, body)
		if err != nil {
			return err
		}
		resp, err := sender.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return httpsender.Check(resp)
	}
	for _, path := range []string{"/good", "/bad", "/broken"} {
		err := deliver(path)
		var sent *httpsender.SendError
		if !errors.As(err, &sent) {
			fmt.Println(path, "delivered")
			continue
		}
		fmt.Println(path, sent.Outcome, sent.Code(), "maybe delivered:", sent.MaybeDelivered(), "retryable:", sent.Retryable())
	}
	// Output:
	// /good delivered
	// /bad rejected 422 maybe delivered: false retryable: false
	// /broken unknown 502 maybe delivered: true retryable: true
}

// The parts of a form are read while they are sent; nothing is held in memory.
func ExampleMultipart() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, header, err := r.FormFile("report")
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		report, _ := io.ReadAll(file)
		fmt.Fprintf(w, "%s for %s: %s", header.Filename, r.FormValue("order"), report)
	}))
	defer server.Close()
	sender := &httpsender.Sender{}
	defer sender.Close()

	form, err := httpsender.Multipart(
		httpsender.Part{Name: "order", Body: httpsender.Bytes("", []byte("4711"))},
		httpsender.Part{
			Name: "report", FileName: "report.txt",
			Body: httpsender.Section("text/plain", strings.NewReader("all is well"), 0, 11), // or a File
		},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	req, err := httpsender.NewRequest(context.Background(), http.MethodPost, server.URL, form)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := sender.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	fmt.Println(string(answer), err)
	// Output:
	// report.txt for 4711: all is well <nil>
}
