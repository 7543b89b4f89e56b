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
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "${")
		if !found {
			out.WriteString(s)
			return out.String(), nil
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			out.WriteString(escaped + "${")
			s = after
			continue
		}
		out.WriteString(before)
		inner, rest, closed := strings.Cut(after, "}")
		switch {
		case !closed:
			return "", errors.New("a ${ without its }: close it, or write $${ for the two characters themselves")
		case strings.HasPrefix(inner, "message."):
			out.WriteString("${" + inner + "}")
		case !isVariable(inner):
			// What stands between the braces may be half of a password: it is not shown.
			return "", errors.New("only ${NAME} and ${message.…} can stand here: write $${ for the two characters themselves")
		default:
			value, ok := lookup(inner)
			if !ok {
				return "", fmt.Errorf("the environment variable %s is not set: set it, or write $${ for the two characters themselves", inner)
			}
			out.WriteString(value)
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
