package meshclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// A message goes from one mailbox to another, and is acknowledged when it is
// stored.
func Example() {
	server, err := meshtest.New(meshtest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	from, _ := server.Config("MAILBOX1") // elsewhere: meshclient.FromEnvironment
	to, _ := server.Config("MAILBOX2")
	sender, err := meshclient.New(from)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sender.Close()
	receiver, err := meshclient.New(to)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer receiver.Close()

	ctx := context.Background()
	_, err = sender.Send(ctx, &meshclient.Message{
		To: "MAILBOX2", WorkflowID: "TEST_WORKFLOW", FileName: "results.csv",
		Content: strings.NewReader("a,b\n1,2\n"), Gzip: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	for id, err := range receiver.Messages(ctx, nil) {
		if err != nil {
			fmt.Println(err)
			return
		}
		var stored bytes.Buffer
		info, err := receiver.Receive(ctx, id, &stored, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s, %d bytes: %q\n", info.FileName, info.Size, stored.String())
		if err := receiver.Acknowledge(ctx, id); err != nil {
			fmt.Println(err)
		}
	}
	// Output: results.csv, 8 bytes: "a,b\n1,2\n"
}

// What became of a message whose answer was lost is asked for by its local id.
func ExampleClient_TrackLocal() {
	server, err := meshtest.New(meshtest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	conf, _ := server.Config("MAILBOX1")
	client, err := meshclient.New(conf)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	server.Script(meshtest.Fault{Op: "send", DropAfter: true})
	ctx := context.Background()
	_, err = client.Send(ctx, &meshclient.Message{To: "MAILBOX2", WorkflowID: "W", Content: strings.NewReader("x")})
	if e, ok := errors.AsType[*meshclient.Error](err); ok && e.MaybeDelivered() {
		found, err := client.TrackLocal(ctx, e.LocalID)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("it was", found.Status)
	}
	// Output: it was accepted
}

func ExampleAuthorization() {
	at := time.Date(2020, 5, 4, 13, 5, 0, 0, time.UTC)
	fmt.Println(meshclient.Authorization("X26ABC1", "password", "TestKey", "bd0e2bd5-218e-41d0-83a9-73fdec414803", 0, at))
	// Output:
	// NHSMESH X26ABC1:bd0e2bd5-218e-41d0-83a9-73fdec414803:0:202005041305:1d7da1305d2c4f169b097f4e7fddbc8dfba024de2ea0fdee858b64536f2a90bc
}

// A mailbox is polled until the program is told to end. Each message is a file when
// it is acknowledged.
func ExamplePoller() {
	server, err := meshtest.New(meshtest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	server.Deliver(&meshtest.Message{From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{[]byte("hello")}})
	conf, _ := server.Config("MAILBOX2")
	client, err := meshclient.New(conf)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	dir, err := os.MkdirTemp("", "mesh")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	ctx, end := context.WithCancel(context.Background())
	defer end()
	poller := &meshclient.Poller{
		Client: client,
		Store:  meshclient.PollFile(filepath.Join(dir, "mesh.json")),
		Handle: func(ctx context.Context, id string) error {
			info, err := client.ReceiveFile(ctx, id, filepath.Join(dir, id+".dat"), nil)
			if err == nil {
				fmt.Println(info.WorkflowID, "from", info.Sender)
			}
			return err
		},
		Observe: func(e meshclient.PollEvent) {
			fmt.Println(e.Kind)
			if e.Kind == meshclient.PollEnded {
				end() // elsewhere: at a signal
			}
		},
	}
	if err := poller.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// handshake
	// W from MAILBOX1
	// acknowledged
	// ended
}
