package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/examples/engine/mirth"
)

// mirthImportCmd is `carewire mirth import`.
type mirthImportCmd struct {
	Files        []string `arg:"" name:"file" help:"Exports of channels, XML or JSON, of Mirth Connect or Open Integration Engine; - reads standard input."`
	Out          string   `required:"" placeholder:"DIR" help:"Directory to write engine.yaml to, made where it is missing; - writes it to standard output."`
	AcceptLosses bool     `help:"Import channels without what is lost. Read the findings first."`
	Force        bool     `help:"Replace an engine.yaml that is there already."`
	JSON         bool     `name:"json" help:"Print channels and findings as JSON, one object a line."`
}

// Help is shown by --help.
func (c *mirthImportCmd) Help() string {
	return "Makes a configuration of the engine, and says what was not carried over. A channel that would do something else without its filters, transformers or scripts " +
		"comes out as comments, and the exit status is 1. See examples/engine/docs/mirth.md."
}

func (c *mirthImportCmd) Run(s *streams) error {
	if c.Out == "-" && c.JSON {
		return unusable("--json and --out - both want standard output: name a directory")
	}
	var exports []mirth.Export
	for _, name := range c.Files {
		data, err := readExport(s, name)
		if err != nil {
			return unusable("%w", err)
		}
		exports = append(exports, mirth.Export{Name: name, Data: data})
	}
	res, err := mirth.Import(exports, mirth.Options{AcceptLosses: c.AcceptLosses})
	if err != nil {
		return unusable("%w", err)
	}
	if c.Out == "-" {
		if _, err := s.out.Write(res.YAML); err != nil {
			return err
		}
		printImport(s.err, res)
	} else {
		name := filepath.Join(c.Out, "engine.yaml")
		if err := writeConfiguration(name, res.YAML, c.Force); err != nil {
			return err
		}
		if err := c.report(s, name, res); err != nil {
			return err
		}
	}
	if !res.Complete() {
		return fmt.Errorf("not every channel is imported: see the findings (--accept-losses imports those that are held)")
	}
	return nil
}

// maxExport is more than any export that can be imported has.
const maxExport = 64 << 20

func readExport(s *streams, name string) ([]byte, error) {
	in := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxExport+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxExport {
		return nil, fmt.Errorf("%s: has more than %d bytes: it is not an export of channels", name, maxExport)
	}
	return data, nil
}

// writeConfiguration writes a file for its owner alone, since hosts and users of a
// hospital are in it.
func writeConfiguration(name string, text []byte, replace bool) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return unusable("%w", err)
	}
	how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if replace {
		how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(name, how, 0o600)
	if os.IsExist(err) {
		return unusable("%w (--force replaces it)", err)
	}
	if err != nil {
		return unusable("%w", err)
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// report prints what became of everything, for people or for scripts.
func (c *mirthImportCmd) report(s *streams, name string, res *mirth.Result) error {
	if !c.JSON {
		printImport(s.out, res)
		fmt.Fprintln(s.out, name)
		return nil
	}
	for _, ch := range res.Channels {
		if err := s.printJSON(struct {
			Kind string `json:"kind"`
			mirth.Channel
		}{"channel", ch}); err != nil {
			return err
		}
	}
	for _, f := range res.Findings {
		if err := s.printJSON(struct {
			Kind string `json:"kind"`
			mirth.Finding
		}{"finding", f}); err != nil {
			return err
		}
	}
	return nil
}

// printImport prints channels and findings for people. Names come from the export, so
// they are quoted.
func printImport(out io.Writer, res *mirth.Result) {
	for _, severity := range []mirth.Severity{mirth.Lost, mirth.Changed, mirth.Info} {
		for _, f := range res.Findings {
			if f.Severity != severity {
				continue
			}
			where := ""
			if f.Channel != "" {
				where = fmt.Sprintf("%q: ", f.Channel)
			}
			if f.Connector != "" {
				where += fmt.Sprintf("%q: ", f.Connector)
			}
			fmt.Fprintf(out, "%s: %s%s: %s\n", severity, where, printable(f.What), f.Why)
		}
	}
	for _, ch := range res.Channels {
		fmt.Fprintf(out, "channel %s %q: %s\n", ch.ID, ch.Name, ch.State)
	}
}
