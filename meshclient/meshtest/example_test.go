package meshtest_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// A program's own test: a server that is busy once, and then has a message.
func Example() {
	server, err := meshtest.New(meshtest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	server.Script(meshtest.Fault{Op: "inbox", Status: 503, Header: http.Header{"Retry-After": {"0"}}, Body: meshtest.HTML})
	server.Deliver(&meshtest.Message{From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{[]byte("hello")}})

	conf, err := server.Config("MAILBOX2")
	if err != nil {
		fmt.Println(err)
		return
	}
	conf.Retry.MinBackoff = time.Millisecond
	client, err := meshclient.New(conf)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	page, err := client.Inbox(context.Background(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(page.MessageIDs), "message after", len(server.Requests()), "requests")
	// Output: 1 message after 2 requests
}
