package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carewire/carewire/dicomtls"
)

// tlsSummary is the version and suite of a connection.
func tlsSummary(cs *tls.ConnectionState) string {
	return tls.VersionName(cs.Version) + " " + tls.CipherSuiteName(cs.CipherSuite)
}

// dicomSendCmd is `carewire dicom send`.
type dicomSendCmd struct {
	dicomPeer
	Window int      `default:"1" placeholder:"N" help:"Objects that may wait for their response at a time, if the SCP agrees (default: ${default})."`
	Quiet  bool     `help:"Print only what was not stored, and the summary."`
	JSON   bool     `name:"json" help:"Print one JSON object for each object and one for the summary."`
	Files  []string `arg:"" name:"file" help:"DICOM files, and directories of them, which are searched to the bottom."`
}

// Help is shown by --help.
func (c *dicomSendCmd) Help() string {
	return "The exit status is 0 when every object was stored; 3 when one was refused; 4 when one was sent and not answered, and may have been stored; " +
		"5 when one was not sent; 2 when nothing was tried because a file or a setting is unusable. Of 3, 4 and 5, 4 comes first and 3 last."
}

// dicomSent is what became of one object.
type dicomSent struct {
	Outcome string `json:"outcome"`
	Status  string `json:"status,omitempty"` // four hexadecimal digits; empty where no response came
	File    string `json:"file"`
	Bytes   int64  `json:"bytes"`
	Error   string `json:"error,omitempty"`
}

// dicomTally counts the outcomes of a run.
type dicomTally struct {
	Stored  int     `json:"stored"`
	Refused int     `json:"refused"`
	Unknown int     `json:"unknown"`
	NotSent int     `json:"notSent"`
	Bytes   int64   `json:"bytes"` // of what was stored
	Seconds float64 `json:"seconds"`
}

// Run sends the objects. The fate of each is printed.
func (c *dicomSendCmd) Run(ctx context.Context, s *streams) error {
	if c.Window < 1 {
		return unusable("--window must be at least 1")
	}
	d, err := c.dialer(s)
	if err != nil {
		return err
	}
	d.Window = c.Window
	objects, err := dicomObjects(s, c.Files)
	if err != nil {
		return err
	}
	bar := &byteProgress{}
	if c.Quiet || !isTerminal(s.out) {
		bar = s.byteProgress(objects)
	}
	tally := dicomTally{}
	began := time.Now()
	d.StoreAll(ctx, "tcp", c.Addr, bar.watch(objects), func(i int, r dicomtls.Result) {
		bar.step()
		line := tally.add(&objects[i], r)
		if c.Quiet && r.Outcome == dicomtls.Stored {
			return
		}
		bar.clear()
		line.print(s, c.JSON)
	})
	bar.clear()
	tally.Seconds = time.Since(began).Seconds()
	tally.print(s, c.JSON)
	if status := tally.status(); status != exitOK {
		return &exitError{status: status}
	}
	return nil
}

// dicomObjects finds the objects of files and directories. What is no DICOM file
// is passed over in a directory, and an error where it was named.
func dicomObjects(s *streams, paths []string) ([]dicomtls.Object, error) {
	var objects []dicomtls.Object
	passed := 0
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, unusable("%w", err)
		}
		if !info.IsDir() {
			o, err := dicomtls.FileObject(path)
			if err != nil {
				return nil, unusable("%w", err)
			}
			objects = append(objects, o)
			continue
		}
		err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			o, err := dicomtls.FileObject(name)
			if err != nil {
				passed++
				return nil //nolint:nilerr // it is counted
			}
			objects = append(objects, o)
			return nil
		})
		if err != nil {
			return nil, unusable("%w", err)
		}
	}
	if passed > 0 {
		s.note("passed over %s that cannot be read as DICOM", plural(passed, "file"))
	}
	if len(objects) == 0 {
		return nil, unusable("there is nothing to send")
	}
	return objects, nil
}

func (t *dicomTally) add(o *dicomtls.Object, r dicomtls.Result) dicomSent {
	line := dicomSent{Outcome: r.Outcome.String(), File: o.Name, Bytes: o.Size}
	if r.Err != nil {
		line.Error = dicomFailure(r.Err).Error()
	}
	switch r.Outcome {
	case dicomtls.Stored:
		t.Stored++
		t.Bytes += o.Size
		line.Status = r.Status.Code()
	case dicomtls.Refused:
		t.Refused++
		line.Status = r.Status.Code()
	case dicomtls.NotSent:
		t.NotSent++
	default:
		t.Unknown++
	}
	return line
}

func (l *dicomSent) print(s *streams, asJSON bool) {
	if asJSON {
		_ = s.printJSON(l) // to a reader that has gone nothing can be said; the status still tells
		return
	}
	word := l.Status
	if word == "" {
		word = strings.ToUpper(l.Outcome)
	}
	fmt.Fprintf(s.out, "%s %s\t%d bytes", word, l.File, l.Bytes)
	if l.Error != "" {
		fmt.Fprintf(s.out, "\t%s", l.Error)
	}
	fmt.Fprintln(s.out)
}

func (t *dicomTally) print(s *streams, asJSON bool) {
	if asJSON {
		_ = s.printJSON(t) // as above
		return
	}
	total := t.Stored + t.Refused + t.Unknown + t.NotSent
	fmt.Fprintf(s.out, "%s: %d stored, %d refused, %d unknown, %d not sent; %.1f MB in %.2f s", plural(total, "object"),
		t.Stored, t.Refused, t.Unknown, t.NotSent, float64(t.Bytes)/1e6, t.Seconds)
	if t.Seconds > 0 {
		fmt.Fprintf(s.out, ", %.1f objects/s, %.1f MB/s", float64(t.Stored)/t.Seconds, float64(t.Bytes)/1e6/t.Seconds)
	}
	fmt.Fprintln(s.out)
}

func (t *dicomTally) status() int {
	switch {
	case t.Unknown > 0:
		return exitUnknown
	case t.NotSent > 0:
		return exitNotSent
	case t.Refused > 0:
		return exitNacked
	}
	return exitOK
}

// byteProgress shows how many bytes and objects of a run have been read for
// sending, at what rate, and how long the rest will take.
type byteProgress struct {
	progress

	done, total atomic.Int64 // objects
}

// watch returns objects whose data sets move the bar as they are read.
func (p *byteProgress) watch(objects []dicomtls.Object) []dicomtls.Object {
	if p.bar == nil {
		return objects
	}
	watched := make([]dicomtls.Object, len(objects))
	for i, o := range objects {
		open := o.Open
		o.Open = func() (io.ReadCloser, error) {
			r, err := open()
			if err != nil {
				return nil, err
			}
			return &watchedReader{r, p}, nil
		}
		watched[i] = o
	}
	return watched
}

type watchedReader struct {
	io.ReadCloser

	bar *byteProgress
}

func (r *watchedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	_ = r.bar.bar.Add(n) // a bar that cannot be drawn is no reason to stop
	return n, err
}

// step says that one more object has met its fate.
func (p *byteProgress) step() {
	n := p.done.Add(1)
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("%d of %s", n, plural(int(p.total.Load()), "object")))
	}
}
