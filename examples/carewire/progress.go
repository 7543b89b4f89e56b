package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/carewire/carewire/dicomtls"
)

// progress shows how far long work has got, where a person is watching: on
// standard error, and only when that is a terminal. It is safe for concurrent
// use.
type progress struct {
	bar *progressbar.ProgressBar // nil: nobody watches
}

// progress begins to show work of total steps.
func (s *streams) progress(total int, what string) *progress {
	if !isTerminal(s.err) {
		return &progress{}
	}
	return &progress{bar: progressbar.NewOptions(total,
		progressbar.OptionSetWriter(s.err),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

// byteProgress begins to show how far the sending of objects has got.
func (s *streams) byteProgress(objects []dicomtls.Object) *byteProgress {
	p := &byteProgress{}
	p.total.Store(int64(len(objects)))
	if !isTerminal(s.err) {
		return p
	}
	var size int64
	for i := range objects {
		size += objects[i].Size
	}
	p.bar = progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(s.err),
		progressbar.OptionSetDescription("0 of "+plural(len(objects), "object")),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
	return p
}

// step says that one more step is done.
func (p *progress) step() {
	if p.bar != nil {
		_ = p.bar.Add(1) // a bar that cannot be drawn is no reason to stop
	}
}

// clear takes the bar off the screen, so that results follow on a clean line.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// isTerminal tells whether a person reads w as it is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
