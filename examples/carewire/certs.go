package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/carewire/carewire/examples/internal/devcert"
)

// certsCmd is `carewire tls certs`.
type certsCmd struct {
	Dir   string   `required:"" placeholder:"DIR" help:"Directory to write to; made (mode 0700) where it is missing."`
	Host  []string `placeholder:"NAME" help:"DNS name or IP address that the certificates name besides localhost, 127.0.0.1 and ::1; repeat it, or separate several with commas."`
	Force bool     `help:"Replace files that are there already."`
}

func (c *certsCmd) Run(s *streams) error {
	files, err := devcert.Write(c.Dir, devcert.Options{Hosts: c.Host, Overwrite: c.Force})
	if errors.Is(err, fs.ErrExist) {
		return unusable("%w (--force replaces the whole set)", err)
	}
	if err != nil {
		return unusable("%w", err)
	}
	for _, line := range []struct{ path, what string }{
		{files.CACert, "the authority: what both sides trust"},
		{files.CAKey, "its key: keep it from everyone"},
		{files.ServerCert, "the server's certificate"},
		{files.ServerKey, "its key"},
		{files.ClientCert, "the client's certificate, for mutual TLS"},
		{files.ClientKey, "its key"},
	} {
		fmt.Fprintf(s.out, "%s\t%s\n", line.path, line.what)
	}
	s.note("these certificates are for development: ca.key lies beside them, and whoever reads it can be anybody")
	return nil
}
