package httpsender_test

import (
	"io"
	"log" //nolint:depguard // net/http's servers log to nothing else
)

// quiet is where servers log what tests provoke.
var quiet = log.New(io.Discard, "", 0)
