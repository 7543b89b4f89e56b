package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/internal/devcert"
	"github.com/carewire/carewire/tlsprops"
)

// firstMessage is a complete ADT A01 of a person who does not exist.
const firstMessage = "MSH|^~\\&|CAREWIRE|EXAMPLE|ENGINE|EXAMPLE|20260101120000||ADT^A01^ADT_A01|FIRST-LIGHT-1|T|2.5\r" +
	"EVN|A01|20260101120000\r" +
	"PID|1||TEST-0001^^^EXAMPLE^MR||Example^Patient||19800101|U\r" +
	"PV1|1|I|WARD^1^A\r"

// development prepares what the engine needs to run without a configuration, in
// dir ("" is ./data), and tells on stdout what to do with it.
func development(dir string, stdout io.Writer) (*config.Config, error) {
	if dir == "" {
		dir = "data"
	}
	certs := filepath.Join(dir, "certs")
	files, made, err := devcert.Ensure(certs)
	if err != nil {
		return nil, err
	}
	message := filepath.Join(dir, "first-message.hl7")
	if err := writeNew(message, firstMessage); err != nil {
		return nil, err
	}
	cfg := config.Development(dir, tlsprops.TlsProperties{
		Enabled: true, KeyStorePath: files.ServerKey, CertStorePath: files.ServerCert,
		TrustStorePath: files.CACert, RequireClientCert: true,
	})
	source := cfg.Channels[0].Source.TCP
	origin := "There were development certificates in " + certs + "."
	if made {
		origin = "Made development certificates in " + certs + "."
	}
	fmt.Fprintf(stdout, `No configuration given (-config FILE). %s
MLLPS with client certificates on %s:%d; messages are filed in %s

Send a first message from another terminal:

  go run ./examples/carewire mllp send --tls --ca %s --cert %s --key %s --addr %s:%d %s

`, origin, source.Host, source.Port, cfg.Channels[0].Destinations[0].File.Directory,
		quote(files.CACert), quote(files.ClientCert), quote(files.ClientKey), source.Host, source.Port, quote(message))
	return cfg, nil
}

// quote makes a path one word of a shell's command line.
func quote(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return strings.ContainsRune(" \t\n'\"\\$`&;|<>()*?[]#~!{}", r) }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}

// writeNew writes a file unless there is one of that name.
func writeNew(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// serverID returns given, or the name that this data directory's engine has
// always had: clients tell servers apart by it.
func serverID(given, dir string) (string, error) {
	if given != "" {
		return given, nil
	}
	path := filepath.Join(dir, "server-id")
	if err := writeNew(path, rand.Text()+"\n"); err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(data))
	if id == "" {
		return "", fmt.Errorf("%s is empty: remove it to have a new one made, or set MIRTH_SERVER_ID", path)
	}
	return id, nil
}
