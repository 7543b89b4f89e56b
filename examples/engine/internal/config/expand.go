package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// expand replaces ${NAME} by what lookup finds, in one pass: what has been put
// in is not looked at again. $${ becomes ${, and ${message.…} stays as it is.
// Errors name the variable, never a value.
func expand(s string, lookup func(string) (string, bool)) (string, error) {
	parts, err := parse(s, lookup)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, p := range parts {
		out.WriteString(p.text)
		if p.variable != "" {
			out.WriteString("${message." + p.variable + "}")
		}
	}
	return out.String(), nil
}

// A part of a text is what stands there, and after it what a message has under
// variable, if that is not empty.
type part struct{ text, variable string }

// parse takes a text apart, with the values of ${NAME} in their places.
func parse(s string, lookup func(string) (string, bool)) ([]part, error) {
	var parts []part
	var text strings.Builder
	for {
		before, after, found := strings.Cut(s, "${")
		if !found {
			text.WriteString(s)
			return append(parts, part{text: text.String()}), nil
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			text.WriteString(escaped + "${")
			s = after
			continue
		}
		text.WriteString(before)
		inner, rest, closed := strings.Cut(after, "}")
		variable, ofMessage := strings.CutPrefix(inner, "message.")
		switch {
		case !closed:
			return nil, errors.New("a ${ without its }: close it, or write $${ for the two characters themselves")
		case ofMessage && variable != "":
			parts = append(parts, part{text.String(), variable})
			text.Reset()
		case !isVariable(inner):
			// What stands between the braces may be half of a password: it is not shown.
			return nil, errors.New("only ${NAME} and ${message.…} can stand here: write $${ for the two characters themselves")
		default:
			value, ok := lookup(inner)
			if !ok {
				return nil, fmt.Errorf("the environment variable %s is not set: set it, or write $${ for the two characters themselves", inner)
			}
			text.WriteString(value)
		}
		s = rest
	}
}

func isVariable(name string) bool {
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	})
}

// maxSecretBytes is far more than any passphrase, and little enough to read a
// file by mistake.
const maxSecretBytes = 64 << 10

// readSecret returns a file's content without its last line break.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSecretBytes {
		return "", fmt.Errorf("%s is longer than %d bytes: it is not a secret", path, maxSecretBytes)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
