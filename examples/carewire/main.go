package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/carewire/carewire/meshclient"
)

// The exit statuses, as the package comment documents them.
const (
	exitOK      = 0 // what was asked has happened
	exitNo      = 1 // the work was done, or tried, and the answer is no
	exitUsage   = 2 // the command line, a file or a certificate is unusable: nothing was begun
	exitNacked  = 3 // mllp send, dicom send: a receiver refused; mail send: the server refused a recipient; http send, mesh send: it answered no
	exitUnknown = 4 // mllp, dicom, mail, http and mesh send: a message, object or request may or may not have arrived
	exitNotSent = 5 // mllp, dicom and mail send: a message or object certainly did not leave; http send, mesh send: another try does no harm
)

// commandLine is the grammar: kong reads the tags.
type commandLine struct {
	Version kong.VersionFlag `help:"Print the version and exit."`

	TLS struct {
		Certs  certsCmd  `cmd:"" help:"Make development certificates: an authority, a server and a client pair."`
		Probe  probeCmd  `cmd:"" help:"Look at a TLS server: chain, names, expiry, versions, suites, client certificates."`
		Expiry expiryCmd `cmd:"" help:"List the certificates of PEM files and when they expire."`
	} `cmd:"" name:"tls" help:"Make and look at certificates and TLS servers."`

	Keystore struct {
		List    keystoreListCmd    `cmd:"" help:"Show what a Java key store, or another file of keys, holds."`
		Convert keystoreConvertCmd `cmd:"" help:"Turn a key store into PEM files, or into PKCS#12."`
		Mirth   keystoreMirthCmd   `cmd:"" help:"Turn the key store of a Mirth installation into PEM files and settings."`
	} `cmd:"" help:"Read and convert JKS, JCEKS and PKCS#12 key stores."`

	MLLP struct {
		Send   sendCmd      `cmd:"" help:"Send HL7 messages and print their acknowledgements."`
		Listen listenCmd    `cmd:"" help:"Receive HL7 messages, store and acknowledge them."`
		Probe  mllpProbeCmd `cmd:"" help:"Find out how a listener behaves, scenario by scenario. It files the messages."`
	} `cmd:"" name:"mllp" help:"Send and receive HL7 v2 messages over MLLP and MLLPS, and probe listeners."`

	DICOM struct {
		Echo   dicomEchoCmd   `cmd:"" help:"Ask an SCP whether it is there (C-ECHO), as echoscu does."`
		Send   dicomSendCmd   `cmd:"" help:"Send DICOM files (C-STORE), as storescu does, and print the fate of each."`
		Listen dicomListenCmd `cmd:"" help:"Receive objects and store them as DICOM files, as storescp does."`
		Commit dicomCommitCmd `cmd:"" help:"Ask an SCP whether it has objects safely (storage commitment)."`
	} `cmd:"" name:"dicom" help:"Send and receive DICOM objects, with TLS and without."`

	HTTP struct {
		Send httpSendCmd `cmd:"" help:"Send one HTTP request and print what became of it."`
	} `cmd:"" name:"http" help:"Send HTTP requests, and none twice that may have had its effect."`

	Mirth struct {
		Import mirthImportCmd `cmd:"" help:"Turn exported channels into configuration of the engine, and say what is missing."`
	} `cmd:"" help:"Move channels over from Mirth Connect and Open Integration Engine."`

	Mesh meshCmds `cmd:"" help:"Send and receive over NHS MESH, verified and resumable."`

	Engine engineCmds `cmd:"" help:"Ask and command an engine over its API."`

	Mail struct {
		Send mailSendCmd `cmd:"" help:"Send one mail and print what became of it for each recipient."`
	} `cmd:"" help:"Send mail that leaves encrypted or not at all."`
}

// streams are the three standard streams of one run.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// printJSON writes v as one line, for scripts.
func (s *streams) printJSON(v any) error {
	enc := json.NewEncoder(s.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note tells the person at the terminal something that is not a result.
func (s *streams) note(format string, args ...any) {
	fmt.Fprintf(s.err, "carewire: "+format+"\n", args...)
}

// exitError ends a command with a status. Without an error there is nothing left
// to say: the command has printed it.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// unusable is the error of something the user gave that cannot be used.
func unusable(format string, args ...any) error {
	return &exitError{status: exitUsage, err: fmt.Errorf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the command winds up by itself; a second one kills.
	context.AfterFunc(ctx, stop)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the whole program: it obeys args, and returns the exit status. The end
// of ctx is what Ctrl-C is to a process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := &streams{in: stdin, out: stdout, err: stderr}
	var cli commandLine
	var done bool // --help or --version has answered
	parser, err := kong.New(&cli,
		kong.Name("carewire"),
		kong.Description("Tools for HL7, DICOM, HTTP, MESH and mail over TLS: certificates, probes, senders and listeners."),
		kong.Vars{"version": version(), "meshdir": meshclient.DefaultDir},
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { done = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
	)
	if err != nil {
		s.note("%v", err)
		return exitUsage
	}
	command, err := parser.Parse(args)
	if done {
		return exitOK
	}
	if err != nil {
		s.note("%v (see --help)", err)
		return exitUsage
	}
	return s.status(command.Run())
}

// status reports a command's error and turns it into an exit status.
func (s *streams) status(err error) int {
	if err == nil {
		return exitOK
	}
	exit, ok := errors.AsType[*exitError](err)
	if !ok {
		exit = &exitError{status: exitNo, err: err}
	}
	if exit.err != nil {
		s.note("%v", exit.err)
	}
	return exit.status
}

// version is what the build recorded of the module and its revision.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "carewire (no build information)"
	}
	words := []string{"carewire", cmp.Or(info.Main.Version, "(devel)")}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			words = append(words, setting.Value)
		}
	}
	return strings.Join(append(words, info.GoVersion), " ")
}
