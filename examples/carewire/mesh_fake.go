package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// meshFakeCmd is `carewire mesh fake`.
type meshFakeCmd struct {
	Addr        string `default:"127.0.0.1:8700" placeholder:"HOST:PORT" help:"Where to listen, on this machine (default: ${default})."`
	Dir         string `required:"" placeholder:"DIR" help:"Directory for what a client needs; made (mode 0700) where it is missing."`
	SmallChunks bool   `help:"Take chunks of less than 5 MB, which MESH does not."`
}

// Help is shown by --help.
func (c *meshFakeCmd) Help() string {
	return "Two mailboxes, MAILBOX1 and MAILBOX2, take any workflow. DIR gets a new client certificate, its key, the authority and the mailbox's " +
		"secrets, under the names that the other commands look for with --dir. Messages are in memory, and gone when it ends."
}

func (c *meshFakeCmd) Run(ctx context.Context, s *streams) error {
	if !isLoopback(c.Addr) {
		return unusable("--addr: %q is not on this machine, and a fake is for nobody else", c.Addr)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	server, err := meshtest.New(meshtest.Options{Listener: ln, SmallChunks: c.SmallChunks})
	if err != nil {
		return err
	}
	defer server.Close()
	conf, err := server.Config("MAILBOX1")
	if err != nil {
		return err
	}
	if err := writeMeshDir(c.Dir, conf); err != nil {
		return unusable("--dir: %w", err)
	}
	if _, err := fmt.Fprintf(s.out, "serving MESH on %s until it is told to end; try\n    carewire mesh handshake --base-url %s --dir %s\n",
		server.URL, server.URL, c.Dir); err != nil {
		return err
	}
	began := time.Now()
	<-ctx.Done()
	s.note("served %s in %s", plural(len(server.Requests()), "request"), time.Since(began).Round(time.Second))
	return nil
}

// writeMeshDir writes what a client needs under the names of FromEnvironment.
func writeMeshDir(dir string, conf meshclient.Config) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"mesh-client-cert.pem": conf.ClientCert, "mesh-client-key.pem": conf.ClientKey, "nhs-ptl-rootca.pem": conf.CACert,
		"mesh-hash-secret": conf.HashSecret, "mesh-mailbox-id": conf.Mailbox, "mesh-mailbox-password": conf.Password,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
