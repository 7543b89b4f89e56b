package sqlite_test

import (
	"context"
	"fmt"
	"os"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

// A message is taken in, acknowledged, and delivered.
func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	st, err := sqlite.Open(ctx, dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer st.Close()

	id, err := st.Intake(ctx, store.Intake{
		Channel:      "adt-in",
		ControlID:    "MSG00001",
		Raw:          []byte("MSH|^~\\&|HIS|WARD|LAB|LAB|20260801||ADT^A01|MSG00001|P|2.5\r"),
		Destinations: []string{"lab", "archive"},
	})
	if err != nil {
		fmt.Println("AE", err)
		return
	}
	fmt.Println("AA, stored as message", id)

	queue, err := st.Pending(ctx, "adt-in", "lab", 0, 16)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range queue {
		st.Attempting(&d)
		fmt.Println("sending", d.Message.ControlID, "to", d.Destination)
		if err := st.Delivered(ctx, &d); err != nil {
			fmt.Println(err)
			return
		}
	}
	stats, err := st.Stats(ctx, "adt-in")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("received", stats.Received, "sent", stats.Sent, "queued", stats.Queued)
	// Output:
	// AA, stored as message 1
	// sending MSG00001 to lab
	// received 1 sent 1 queued 1
}
