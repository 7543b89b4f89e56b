package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

const (
	// keyBytes is the length of a key: AES-256.
	keyBytes = 32

	maxKeys      = 64
	maxKeyID     = 32
	maxFileBytes = 64 << 10
)

// Keys are those that a store is sealed with: the first seals, all of them open. The
// zero value has none. Its text, in whatever form, has no key in it.
type Keys struct {
	ring []key
}

type key struct {
	id     string
	secret [keyBytes]byte
}

// Len returns how many keys there are.
func (k Keys) Len() int { return len(k.ring) }

// String names the keys.
func (k Keys) String() string {
	ids := make([]string, len(k.ring))
	for i := range k.ring {
		ids[i] = k.ring[i].id
	}
	return "keys " + strings.Join(ids, ", ")
}

// Format implements fmt.Formatter: every verb is String.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue implements slog.LogValuer.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

func (k Keys) find(id string) *key {
	for i := range k.ring {
		if k.ring[i].id == id {
			return &k.ring[i]
		}
	}
	return nil
}

// ReadKeys reads a file of keys that nobody but its owner may read: in each line an
// id, a colon and 32 bytes in base64, as `openssl rand -base64 32` makes them. Empty
// lines and lines that begin with # are left out. The first key seals.
func ReadKeys(path string) (Keys, error) {
	f, err := os.Open(path)
	if err != nil {
		return Keys{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return Keys{}, err
	case !info.Mode().IsRegular():
		return Keys{}, fmt.Errorf("%s: is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return Keys{}, fmt.Errorf("%s: others than its owner may read or change it (mode %04o): chmod 0600", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return Keys{}, err
	}
	defer clear(text)
	if len(text) > maxFileBytes {
		return Keys{}, fmt.Errorf("%s: is longer than %d bytes: it is no file of keys", path, maxFileBytes)
	}
	keys, err := parseKeys(bytes.Split(text, []byte("\n")))
	if err != nil {
		return Keys{}, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// ParseKeys reads keys from one text, as a variable of the environment has it: those
// of a file, with commas between them. A key without an id has one made of it.
func ParseKeys(text string) (Keys, error) {
	parts := strings.Split(text, ",")
	lines := make([][]byte, len(parts))
	for i, part := range parts {
		part = strings.TrimSpace(part)
		if raw, err := base64.StdEncoding.DecodeString(part); err == nil && len(raw) == keyBytes {
			sum := sha256.Sum256(append([]byte("carewire key id\x00"), raw...))
			part = "key-" + hex.EncodeToString(sum[:4]) + ":" + part
		}
		lines[i] = []byte(part)
	}
	return parseKeys(lines)
}

// parseKeys reads one key a line. Its errors name lines, and nothing of what they hold.
func parseKeys(lines [][]byte) (Keys, error) {
	var keys Keys
	for i, line := range lines {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		id, encoded, found := bytes.Cut(line, []byte(":"))
		if !found || !validKeyID(string(id)) {
			return Keys{}, fmt.Errorf("key in line %d: write ID:BASE64, the id with letters, digits, -, _ and . only, %d at most", i+1, maxKeyID)
		}
		k := key{id: string(id)}
		raw := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
		n, err := base64.StdEncoding.Decode(raw, encoded)
		if err != nil || n != keyBytes || bytes.Count(raw[:n], raw[:1]) == n {
			clear(raw)
			return Keys{}, fmt.Errorf("key in line %d: is not %d random bytes in base64: make it with `openssl rand -base64 %d`", i+1, keyBytes, keyBytes)
		}
		copy(k.secret[:], raw)
		clear(raw)
		if keys.find(k.id) != nil {
			return Keys{}, fmt.Errorf("key in line %d: another has the same id", i+1)
		}
		if keys.ring = append(keys.ring, k); len(keys.ring) > maxKeys {
			return Keys{}, fmt.Errorf("has more than %d keys", maxKeys)
		}
	}
	if len(keys.ring) == 0 {
		return Keys{}, errors.New("has no key")
	}
	return keys, nil
}

func validKeyID(id string) bool {
	return id != "" && len(id) <= maxKeyID && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
}
