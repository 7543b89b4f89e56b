package meshclient

import (
	"crypto/md5"  //nolint:gosec // senders use it, and it is no less than nothing against what gets lost on the way
	"crypto/sha1" //nolint:gosec // the same
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"hash"
	"strings"
)

// digestOf returns the hash that a sender's checksum is of, and what it should
// be. A checksum is hexadecimal, perhaps after the name of the hash and a colon;
// one in another form is nil: MESH lets senders write what they like.
func digestOf(checksum string) (h hash.Hash, want string) {
	name, sum, named := strings.Cut(checksum, ":")
	if !named {
		name, sum = "", checksum
	}
	sum = strings.ToLower(strings.TrimSpace(sum))
	if _, err := hex.DecodeString(sum); err != nil {
		return nil, ""
	}
	name = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(name), "-", ""))
	for _, known := range []struct {
		name string
		size int
		make func() hash.Hash
	}{{"md5", md5.Size, md5.New}, {"sha1", sha1.Size, sha1.New}, {"sha256", sha256.Size, sha256.New}} {
		if len(sum) == 2*known.size && (name == "" || name == known.name) {
			return known.make(), sum
		}
	}
	return nil, ""
}

// saveHash returns the inner state of a hash, nil of none.
func saveHash(h hash.Hash) []byte {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil
	}
	b, err := m.MarshalBinary()
	if err != nil {
		return nil
	}
	return b
}

// restoreHash puts a state back.
func restoreHash(h hash.Hash, state []byte) error {
	m, ok := h.(encoding.BinaryUnmarshaler)
	if !ok || m.UnmarshalBinary(state) != nil {
		return errors.New("it is not that of this checksum")
	}
	return nil
}
