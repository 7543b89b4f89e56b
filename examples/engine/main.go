// NODE_EXTRA_CA_CERTS needs what follows (extraca.go); without that variable it does
// nothing.
//
//go:debug x509usefallbackroots=1

// Command engine is a complete server built from carewire: it takes HL7 messages
// in over MLLP and MLLPS, makes them durable before it acknowledges them, and
// delivers them in order, for as long as it takes.
//
//	go run ./examples/engine                        a first message in one minute
//	go run ./examples/engine -config engine.yaml    your channels
//	go run ./examples/engine -config engine.yaml -check
//	go run ./examples/engine -config engine.yaml -verify-audit
//	go run ./examples/engine -config engine.yaml -restore BACKUP
//	go run ./examples/engine -demo                  the main job from end to end, judged
//
// Without -config it makes development certificates in its data directory, opens
// one channel with mutual TLS on 127.0.0.1:6661, and prints the command that
// sends a first message.
//
// The environment says how the process runs: PORT and HTTP_HOST for the API
// (127.0.0.1:8080), TLS_CERT, TLS_KEY and HTTPS_PORT for HTTPS, and more that
// docs/api.md lists.
//
// SIGTERM and SIGINT let messages in hand be finished, for up to 20 s, and exit
// with status 0; a second one ends the process at once.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/demo"
	"github.com/carewire/carewire/examples/engine/internal/serverlog"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// After the first signal they have their usual effect again: a second one
	// ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// flags are what the command line says.
type flags struct {
	config   string // empty: development
	data     string // empty: the configuration's
	check    bool
	demo     bool
	audit    bool
	restore  string // empty: nothing is restored
	sabotage string // empty: none
}

func parseFlags(args []string, stderr io.Writer) (flags, error) {
	var f flags
	set := flag.NewFlagSet("engine", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.config, "config", "", "the configuration `FILE`; without it, one channel with development certificates")
	set.StringVar(&f.data, "data", "", "the data `DIR`ectory, in place of the configuration's dataDir (without a configuration: ./data)")
	set.BoolVar(&f.check, "check", false, "read the configuration and all TLS files, print every mistake on a line of its own, and exit")
	set.BoolVar(&f.demo, "demo", false, "play the main job from end to end, in under a minute, and judge whether a message was lost")
	set.BoolVar(&f.audit, "verify-audit", false, "check that no line of the audit log was changed, removed or put in, and exit")
	set.StringVar(&f.restore, "restore", "", "put the store of a backup `FILE` into the data directory, which must have none, and exit")
	set.StringVar(&f.sabotage, "sabotage", "", "with -demo: break the engine's promise, which the demo must notice; the only `KIND` is "+demo.AckBeforeCommit)
	if err := set.Parse(args); err != nil {
		return flags{}, err
	}
	err := error(nil)
	switch {
	case set.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: a configuration is given with -config", set.Arg(0))
	case f.check && f.config == "":
		err = errors.New("-check needs -config FILE")
	case f.audit && f.check, f.restore != "" && (f.audit || f.check):
		err = errors.New("-verify-audit, -check and -restore are each done alone")
	case f.demo && (f.audit || f.restore != ""):
		err = errors.New("-demo brings its own configuration: leave out -verify-audit and -restore")
	case f.demo && (f.config != "" || f.data != "" || f.check):
		err = errors.New("-demo brings its own configuration: leave out -config, -data and -check")
	case f.sabotage != "" && f.sabotage != demo.AckBeforeCommit:
		err = fmt.Errorf("-sabotage is %q, and the only kind is %s", f.sabotage, demo.AckBeforeCommit)
	case f.sabotage != "" && !f.demo && !demo.IsDemo(f.config):
		err = errors.New("-sabotage needs -demo: it loses messages")
	}
	if err != nil {
		fmt.Fprintln(stderr, "engine:", err)
	}
	return f, err
}

// run is main without the process around it. Instructions for people go to
// stdout, logs and errors to stderr.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	f, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	if f.demo {
		return runDemo(ctx, f.sabotage, stdout, stderr)
	}
	if f.audit {
		return verifyAudit(f, lookup, stdout, stderr)
	}
	if f.restore != "" {
		return restore(ctx, f, lookup, stdout, stderr)
	}
	vars := config.NewVariables(lookup)
	env, err := config.ReadEnvironment(vars.Lookup)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	if err := trustExtraCAs(env.ExtraCACerts); err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	cfg, err := configuration(f, vars.Lookup, stdout)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	if f.check {
		fmt.Fprintf(stdout, "%s: no mistakes (channels: %d)\n", f.config, len(cfg.Channels))
		return exitOK
	}
	recent := serverlog.New(env.LogLevel)
	log := newLogger(env, stderr, recent.Handler())
	if len(env.Unsupported) > 0 {
		log.WarnContext(ctx, "variables that are not supported have no effect", "variables", env.Unsupported)
	}
	wrap := asIs
	if f.sabotage != "" {
		wrap = demo.Sabotaged
	}
	if err := serve(ctx, cfg, env, vars, wrap, stdout, log, recent); err != nil {
		fmt.Fprintln(stderr, "engine:", err)
		return exitError
	}
	return exitOK
}

// asIs is the store without anything between it and the engine.
func asIs(s store.Store) store.Store { return s }

// runDemo plays the demo with this very binary as the engine.
func runDemo(ctx context.Context, sabotage string, stdout, stderr io.Writer) int {
	executable, err := os.Executable()
	if err == nil {
		err = demo.Run(ctx, demo.Options{Executable: executable, Sabotage: sabotage, Out: stdout})
	}
	if err != nil {
		fmt.Fprintln(stderr, "engine:", err)
		return exitError
	}
	return exitOK
}

// verifyAudit checks the audit log of a data directory, whether an engine runs in it
// or not.
func verifyAudit(f flags, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	dir, err := dataDir(f, lookup)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	sum, err := audit.Verify(filepath.Join(dir, "audit"))
	if err != nil {
		fmt.Fprintln(stderr, "engine: the audit log:", err)
		return exitError
	}
	fmt.Fprintf(stdout, "The audit log holds together: records %d to %d. The hash of the last is\n%s\n"+
		"Keep number and hash elsewhere: what is cut off at the end later shows only there.\n", sum.First, sum.Last, sum.Head)
	return exitOK
}

// dataDir is the data directory of what is done beside an engine.
func dataDir(f flags, lookup func(string) (string, bool)) (string, error) {
	if f.config == "" || f.data != "" {
		return cmp.Or(f.data, "data"), nil
	}
	cfg, err := config.Load(f.config, lookup)
	if err != nil {
		return "", err
	}
	return cfg.DataDir, nil
}

func configuration(f flags, lookup func(string) (string, bool), stdout io.Writer) (*config.Config, error) {
	if f.config == "" {
		return development(f.data, stdout)
	}
	cfg, err := config.Load(f.config, lookup)
	if err == nil && f.data != "" {
		cfg.DataDir = f.data
	}
	return cfg, err
}

func newLogger(env config.Environment, w io.Writer, also slog.Handler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: env.LogLevel}
	if env.LogJSON {
		return slog.New(slog.NewMultiHandler(slog.NewJSONHandler(w, opts), also))
	}
	return slog.New(slog.NewMultiHandler(slog.NewTextHandler(w, opts), also))
}
