package users

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost is the work that argon2id (RFC 9106) does for one password.
type Cost struct {
	Memory  uint32 // KiB
	Passes  uint32
	Threads uint8
}

// defaultCost is OWASP's least for argon2id: some 20 to 50 ms, and little enough
// memory for the few that run at a time.
var defaultCost = Cost{Memory: 19 << 10, Passes: 2, Threads: 1}

// maxCost bounds what a hash from a file may make us do.
var maxCost = Cost{Memory: 256 << 10, Passes: 16, Threads: 16}

const (
	saltBytes = 16
	keyBytes  = 32

	// What Mirth does (its class Digester): PBKDF2 since 4.4, before that SHA-256
	// over and over. Both are the base64 of 8 bytes of salt and 32 of digest.
	mirthSaltBytes  = 8
	mirthPBKDF2     = 600_000
	mirthIterations = 1000
)

// hashPassword returns the PHC string of a password with a fresh salt.
func hashPassword(password string, cost Cost) string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	key := argon2.IDKey([]byte(password), salt, cost.Passes, cost.Memory, cost.Threads, keyBytes)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		cost.Memory, cost.Passes, cost.Threads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

var errHash = errors.New("is not the hash of a password: it is $argon2id$… or one of Mirth's, which is the base64 of 40 bytes")

// parsedHash is a hash taken apart: by argon2id if cost is set, else one of Mirth's.
type parsedHash struct {
	cost      Cost
	salt, key []byte
}

func parseHash(hash string) (parsedHash, error) {
	if !strings.HasPrefix(hash, "$") {
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(hash))
		if err != nil || len(data) != mirthSaltBytes+sha256.Size {
			return parsedHash{}, errHash
		}
		return parsedHash{salt: data[:mirthSaltBytes], key: data[mirthSaltBytes:]}, nil
	}
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return parsedHash{}, errHash
	}
	var p parsedHash
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.cost.Memory, &p.cost.Passes, &p.cost.Threads); err != nil {
		return parsedHash{}, errHash
	}
	var errSalt, errKey error
	p.salt, errSalt = base64.RawStdEncoding.DecodeString(parts[4])
	p.key, errKey = base64.RawStdEncoding.DecodeString(parts[5])
	switch {
	case errSalt != nil || errKey != nil || len(p.salt) < 8 || len(p.salt) > 64 || len(p.key) < 16 || len(p.key) > 64:
		return parsedHash{}, errHash
	case p.cost.Passes < 1 || p.cost.Passes > maxCost.Passes || p.cost.Threads < 1 || p.cost.Threads > maxCost.Threads ||
		p.cost.Memory < 8*uint32(p.cost.Threads) || p.cost.Memory > maxCost.Memory:
		return parsedHash{}, errors.New("asks for more work than is done here for a password")
	}
	return p, nil
}

// ofMirth tells whether the hash is one of Mirth's.
func (p parsedHash) ofMirth() bool { return p.cost == (Cost{}) }

// matches tells whether password is the one of the hash.
func (p parsedHash) matches(password string) bool {
	if !p.ofMirth() {
		got := argon2.IDKey([]byte(password), p.salt, p.cost.Passes, p.cost.Memory, p.cost.Threads, uint32(len(p.key))) //nolint:gosec // 64 at most
		return subtle.ConstantTimeCompare(got, p.key) == 1
	}
	old := sha256.Sum256(append(append([]byte{}, p.salt...), password...))
	for range mirthIterations - 1 {
		old = sha256.Sum256(old[:])
	}
	isOld := subtle.ConstantTimeCompare(old[:], p.key) == 1
	recent, err := pbkdf2.Key(sha256.New, password, p.salt, mirthPBKDF2, sha256.Size)
	return isOld || err == nil && subtle.ConstantTimeCompare(recent, p.key) == 1
}
