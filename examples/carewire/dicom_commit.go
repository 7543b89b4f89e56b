package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/tlsprops"
)

// dicomCommitCmd is `carewire dicom commit`.
type dicomCommitCmd struct {
	dicomPeer
	Listen string   `placeholder:"HOST:PORT" help:"Address to listen on for a report that the SCP brings on an association of its own, called by --calling, in the same --mode with the same key and authorities. Without it, the report is awaited on the association of the request."`
	JSON   bool     `name:"json" help:"Print one JSON object for each object."`
	Files  []string `arg:"" name:"file" help:"DICOM files that the SCP has been sent, and directories of them."`
}

// committed is whether the SCP vouches for one object.
type committed struct {
	Committed bool   `json:"committed"`
	Reason    string `json:"reason,omitempty"` // four hexadecimal digits; empty if the SCP gave none
	File      string `json:"file"`
}

// Run asks for storage commitment and waits for the report.
func (c *dicomCommitCmd) Run(ctx context.Context, s *streams) error {
	d, err := c.dialer(s)
	if err != nil {
		return err
	}
	objects, err := dicomObjects(s, c.Files)
	if err != nil {
		return err
	}
	refs := make([]dicomtls.Reference, 0, len(objects))
	for i := range objects {
		refs = append(refs, dicomtls.Reference{SOPClassUID: objects[i].SOPClassUID, SOPInstanceUID: objects[i].SOPInstanceUID})
	}
	if c.Listen != "" {
		stop, err := c.listen(ctx, d)
		if err != nil {
			return err
		}
		defer stop()
	}
	a, err := d.DialContext(ctx, "tcp", c.Addr, dicomtls.CommitProposal())
	if err != nil {
		return dicomFailure(err)
	}
	defer a.Close()
	result, err := a.Commit(ctx, refs)
	if err != nil {
		return dicomFailure(err)
	}
	_ = a.Release(ctx) // the report has come
	return c.report(s, objects, result)
}

// lastAnswer is how long the answer to a report, and the end of its association, may
// take.
const lastAnswer = 5 * time.Second

// listen takes reports on associations of the SCP's until stop is called.
func (c *dicomCommitCmd) listen(ctx context.Context, d *dicomtls.Dialer) (stop func(), err error) {
	own := c.dicomTLS
	own.Name = "" // of the SCP as a server
	p, err := own.properties(tlsprops.Listener)
	if err != nil {
		return nil, err
	}
	d.Commitments = new(dicomtls.Commitments)
	server := &dicomtls.Server{AETitles: []string{c.Calling}, Commitments: d.Commitments, TLS: p}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(context.WithoutCancel(ctx), ln) // ends with stop
	}()
	return func() {
		// The SCP that brought the report waits for the answer to it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAnswer)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-ended
	}, nil
}

// report prints for which objects the SCP vouches.
func (c *dicomCommitCmd) report(s *streams, objects []dicomtls.Object, result *dicomtls.CommitResult) error {
	failed := make(map[dicomtls.Reference]dicomtls.Status)
	for _, f := range result.Failed {
		failed[f.Reference] = f.Reason
	}
	for i := range objects {
		o := &objects[i]
		reason, no := failed[dicomtls.Reference{SOPClassUID: o.SOPClassUID, SOPInstanceUID: o.SOPInstanceUID}]
		line := committed{Committed: !no, File: o.Name}
		if no && reason != 0 {
			line.Reason = reason.Code()
		}
		switch {
		case c.JSON:
			_ = s.printJSON(line) // to a reader that has gone nothing can be said; the status still tells
		case line.Committed:
			fmt.Fprintf(s.out, "COMMITTED %s\n", o.Name)
		case line.Reason != "":
			fmt.Fprintf(s.out, "NOT COMMITTED %s\t%s\n", o.Name, reason)
		default:
			fmt.Fprintf(s.out, "NOT COMMITTED %s\tnot mentioned in the report\n", o.Name)
		}
	}
	if len(failed) > 0 {
		return &exitError{status: exitNo, err: errors.New("the SCP does not vouch for " + plural(len(failed), "object"))}
	}
	return nil
}
