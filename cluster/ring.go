package cluster

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxSecrets bounds the secrets that are accepted at a time; a rotation needs two.
const maxSecrets = 8

// A ring is the secrets in use at one time. Immutable; keys[0] is the one to
// send.
type ring struct {
	generation uint64
	keys       []key
}

// key is what is kept of a secret.
type key struct {
	id     string // tells secrets apart in headers and events, and tells nothing else of them
	sum    sum    // SHA-256 of the secret
	mac    sum    // the key of HMACs
	secret Secret // sent by PlainHeader
}

// newKey derives everything from a secret that check has passed. The labels make
// the results independent of each other (RFC 5869, section 3.2).
func newKey(s Secret) (key, error) {
	id, err := hkdf.Key(sha256.New, []byte(s), nil, "carewire cluster v1 key id", keyIDDigits/2)
	if err != nil {
		return key{}, err
	}
	mac, err := hkdf.Key(sha256.New, []byte(s), nil, "carewire cluster v1 hmac", sha256.Size)
	if err != nil {
		return key{}, err
	}
	return key{id: hex.EncodeToString(id), sum: sha256.Sum256([]byte(s)), mac: sum(mac), secret: s}, nil
}

// newRing checks the secrets and derives their keys. The first is the one to
// send; later ones that are there already are left out.
func newRing(secrets []Secret) (*ring, error) {
	if len(secrets) == 0 {
		return nil, ErrNoSecret
	}
	if len(secrets) > maxSecrets {
		return nil, fmt.Errorf("%d secrets are too many: a rotation needs two, and %d are the limit", len(secrets), maxSecrets)
	}
	r := &ring{}
	for i, s := range secrets {
		err := s.check()
		if err == nil {
			var k key
			if k, err = newKey(s); err == nil && r.byID(k.id) == nil {
				r.keys = append(r.keys, k)
			}
		}
		if err != nil && len(secrets) > 1 {
			err = fmt.Errorf("secret %d of %d: %w", i+1, len(secrets), err)
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// parseSecrets returns the secrets of a SecretFile: one in a line, without empty
// lines and those that begin with #.
func parseSecrets(text string) ([]Secret, error) {
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		return nil, errors.New("the file is UTF-16 text: save it as ASCII or UTF-8")
	}
	var secrets []Secret
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			secrets = append(secrets, Secret(line))
		}
	}
	if len(secrets) == 0 {
		return nil, ErrNoSecret
	}
	return secrets, nil
}

// byID returns the key with an ID, nil if there is none. IDs are no secret.
func (r *ring) byID(id string) *key {
	if i := slices.IndexFunc(r.keys, func(k key) bool { return k.id == id }); i >= 0 {
		return &r.keys[i]
	}
	return nil
}

// bySecret returns the key of a secret, nil if it is none of ours. How long it
// takes depends on how long the presented secret is, and on nothing that the
// peer does not know: it is hashed first, since ConstantTimeCompare alone gives
// away the length, and compared with every key.
func (r *ring) bySecret(presented string) *key {
	got := sha256.Sum256([]byte(presented))
	match := -1
	for i := range r.keys {
		equal := subtle.ConstantTimeCompare(got[:], r.keys[i].sum[:])
		match = subtle.ConstantTimeSelect(equal, i, match)
	}
	if match < 0 {
		return nil
	}
	return &r.keys[match]
}

// primary is the key to send.
func (r *ring) primary() *key { return &r.keys[0] }

// ids returns the IDs of all keys, the one to send first.
func (r *ring) ids() []string {
	ids := make([]string, len(r.keys))
	for i := range r.keys {
		ids[i] = r.keys[i].id
	}
	return ids
}

// same reports whether two rings hold the same secrets in the same order.
func (r *ring) same(other *ring) bool { return slices.Equal(r.ids(), other.ids()) }
