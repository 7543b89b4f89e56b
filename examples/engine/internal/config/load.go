package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/tlsprops"
)

// maxFileBytes is far more than any configuration: thousands of channels.
const maxFileBytes = 8 << 20

// Load reads the configuration in the file path, with lookup (os.LookupEnv) for
// the variables in it. It also loads every TLS file that the configuration
// names. The error is a LineErrors that holds every mistake there is.
func Load(path string, lookup func(string) (string, bool)) (*Config, error) {
	d := &decoder{file: path, lookup: lookup, lines: make(map[string]int)}
	data, err := readBounded(path)
	if err != nil {
		d.report(0, "", "%v", err)
		return nil, d.found
	}
	root, ok := d.parse(data)
	if !ok {
		return nil, d.found
	}
	var cfg Config
	d.value(root, "", reflect.ValueOf(&cfg).Elem())
	d.resolvePaths(&cfg)
	d.check(&cfg)
	if len(d.found) > 0 {
		slices.SortStableFunc(d.found, func(a, b LineError) int { return a.Line - b.Line })
		return nil, d.found
	}
	if !d.has("dataDir") {
		cfg.DataDir = d.resolve(defaultDataDir)
	}
	cfg.setDefaults()
	return &cfg, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			return nil, fmt.Errorf("%w: give the configuration's path with -config", pathErr.Err)
		}
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("is longer than %d bytes: it is not a configuration", maxFileBytes)
	}
	return data, nil
}

// parse returns the root node of the only document in data.
func (d *decoder) parse(data []byte) (*yaml.Node, bool) {
	if !utf8.Valid(data) {
		bad := bytes.IndexFunc(data, func(r rune) bool { return r == utf8.RuneError })
		d.report(lineOf(data, []int{bad}, 1), "", "is not UTF-8: save the file in that encoding")
		return nil, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.report(0, "", "is empty: it needs at least one channel under channels:")
		return nil, false
	case err != nil:
		d.syntax(data, err)
		return nil, false
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		d.report(more.Line, "", "a second document begins here: keep everything in one, without a line of ---")
		return nil, false
	case !errors.Is(err, io.EOF):
		d.syntax(data, err)
		return nil, false
	}
	root := doc.Content[0]
	if root.ShortTag() == "!!null" {
		d.report(0, "", "is empty: it needs at least one channel under channels:")
		return nil, false
	}
	return root, true
}

var (
	yamlLine   = regexp.MustCompile(`line (\d+): `)
	yamlQuoted = regexp.MustCompile(`'[^']*'|"[^"]*"|` + "`[^`]*`")
	tabIndent  = regexp.MustCompile(`(?m)^ *\t`)
)

// syntax reports what yaml says about text that is not YAML, without the
// passages of the file that it may quote.
func (d *decoder) syntax(data []byte, err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		line, _ = strconv.Atoi(text[m[2]:m[3]]) // digits by the expression
		text = text[m[1]:]
	}
	// yaml counts the lines of its parser's errors, unlike its scanner's, from
	// zero, and it does not say where a tab or an alias stands.
	switch {
	case strings.Contains(text, "did not find expected") && yamlLine.MatchString(err.Error()):
		line++
	case strings.Contains(text, "tab character"):
		line = lineOf(data, tabIndent.FindIndex(data), line)
	case strings.HasPrefix(text, "unknown anchor '"):
		name, _, _ := strings.Cut(strings.TrimPrefix(text, "unknown anchor '"), "'")
		line = lineOf(data, regexp.MustCompile(`\*`+regexp.QuoteMeta(name)).FindIndex(data), line)
	}
	d.report(line, "", "is not YAML: %s: look at indentation, colons and quotes, here and just above", yamlQuoted.ReplaceAllString(text, "…"))
}

// lineOf returns the line in which the match begins, or otherwise if there is
// no match.
func lineOf(data []byte, match []int, otherwise int) int {
	if match == nil {
		return otherwise
	}
	return 1 + bytes.Count(data[:match[0]], []byte("\n"))
}

// resolvePaths makes every path in cfg independent of the working directory's
// meaning: relative ones count from the configuration file.
func (d *decoder) resolvePaths(cfg *Config) {
	paths := []*string{&cfg.DataDir, &cfg.Backup.Directory, &cfg.Encryption.KeyFile}
	addTLS := func(p *tlsprops.TlsProperties) {
		if p == nil {
			return
		}
		paths = append(paths, &p.KeyStorePath, &p.CertStorePath, &p.TrustStorePath, &p.PassphraseFile, &p.OCSPStaplePath)
		for i := range p.CRLPaths {
			paths = append(paths, &p.CRLPaths[i])
		}
	}
	addDICOM := func(p *dicomtls.Properties) {
		paths = append(paths, &p.KeyStore, &p.CertStore, &p.TrustStore)
		for i := range p.CRLPaths {
			paths = append(paths, &p.CRLPaths[i])
		}
	}
	for i := range cfg.Channels {
		ch := &cfg.Channels[i]
		if s := ch.Source.DICOM; s != nil {
			paths = append(paths, &s.Dest)
			addDICOM(&s.TLS)
		}
		if tcp := ch.Source.TCP; tcp != nil {
			addTLS(tcp.TLS)
			addTLS(tcp.ResponseTLS)
			if q := tcp.Quarantine; q != nil {
				paths = append(paths, &q.Directory)
			}
		}
		if s := ch.Source.HTTP; s != nil {
			addTLS(s.TLS)
		}
		if s := ch.Source.MESH; s != nil {
			paths = append(paths, &s.Directory)
			addTLS(s.TLS)
		}
		for j := range ch.Destinations {
			switch dest := &ch.Destinations[j]; {
			case dest.TCP != nil:
				addTLS(dest.TCP.TLS)
			case dest.DICOM != nil:
				addDICOM(&dest.DICOM.TLS)
			case dest.HTTP != nil:
				addTLS(dest.HTTP.TLS)
			case dest.SMTP != nil:
				addTLS(dest.SMTP.TLS)
			case dest.MESH != nil:
				addTLS(dest.MESH.TLS)
			case dest.File != nil:
				paths = append(paths, &dest.File.Directory)
			}
		}
	}
	for _, path := range paths {
		*path = d.resolve(*path)
	}
}

// Development is the configuration that the engine has without any: one channel
// that takes MLLPS with client certificates on 127.0.0.1:6661 and files what it
// gets under dataDir.
func Development(dataDir string, serverTLS tlsprops.TlsProperties) *Config {
	cfg := &Config{
		DataDir: dataDir,
		Channels: []Channel{{
			ID: "first-light", Name: "MLLPS Receiver",
			Source:       Source{Type: "tcp", TCP: &TCPSource{Host: "127.0.0.1", Port: 6661, TLS: &serverTLS}},
			Destinations: []Destination{{Name: "archive", Type: "file", File: &FileDestination{Directory: filepath.Join(dataDir, "archive")}}},
		}},
	}
	cfg.setDefaults()
	return cfg
}
