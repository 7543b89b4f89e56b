package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

const (
	// mark begins the source map of a sealed message, which is text:
	//
	//	sealed1:<key id>:<base64 of salt, nonce, sealed source map>
	//
	// Nobody who sends a message can write it: a source map begins with a brace. The
	// payload beside it is nonce and ciphertext.
	mark = "sealed1:"

	saltBytes = 32
	overhead  = 12 + 16 // of a nonce and a tag
)

// The parts of a message, told apart by the additional data.
const (
	partRaw    = 1
	partSource = 2
)

// cipherOf returns the cipher of one message.
//
// One key for all messages would do for 2^32 of them: more, each with 96 random bits
// as its nonce, may not share a key (NIST SP 800-38D, 8.3), and an engine takes in
// that many in a year with 136 a second. So each message has a key of its own, made
// of the ring's with 256 random bits: HKDF (RFC 5869), whose first step can be left
// out as the ring's keys are uniform already (section 3.3). Of these there is no
// limit that matters, and the two nonces in a message cannot collide with another's.
func (k *key) cipherOf(salt []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Expand(sha256.New, k.secret[:], "carewire message 1\x00"+string(salt), keyBytes)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// additional binds a part to the message that it is of: ciphertext that is moved to
// another channel or control id, or from source map to payload, does not open. Salt
// and key bind payload and source map to each other.
func additional(part byte, keyID, channel, controlID string) []byte {
	data := append(make([]byte, 0, 32+len(keyID)+len(channel)+len(controlID)), part)
	for _, text := range []string{keyID, channel, controlID} {
		data = binary.BigEndian.AppendUint64(data, uint64(len(text)))
		data = append(data, text...)
	}
	return data
}

// seal returns in with payload and source map sealed. The original is not changed.
func (k *key) seal(in store.Intake) (store.Intake, error) {
	sealed := make([]byte, saltBytes, saltBytes+overhead+len(in.Source.Text()))
	_, _ = rand.Read(sealed) // it never fails
	aead, err := k.cipherOf(sealed)
	if err != nil {
		return in, fmt.Errorf("sealing: %w", err)
	}
	sealed = aead.Seal(sealed, nil, []byte(in.Source.Text()), additional(partSource, k.id, in.Channel, in.ControlID))
	in.Raw = aead.Seal(make([]byte, 0, overhead+len(in.Raw)), nil, in.Raw, additional(partRaw, k.id, in.Channel, in.ControlID))
	in.Source = store.KeptSource(mark + k.id + ":" + base64.StdEncoding.EncodeToString(sealed))
	return in, nil
}

// isSealed tells whether a message with this source map is.
func isSealed(source store.Source) bool { return strings.HasPrefix(source.Text(), mark) }

var (
	errUnsealed = fmt.Errorf("%w: it is not sealed, and encryption.unsealed is refuse", store.ErrTampered)
	errChanged  = fmt.Errorf("%w: it does not open", store.ErrTampered)
)

// open opens a sealed message's source map and, where that is there, its payload.
func (k Keys) open(channel, controlID string, source store.Source, raw []byte, hasRaw bool) (store.Source, []byte, error) {
	id, encoded, found := strings.Cut(strings.TrimPrefix(source.Text(), mark), ":")
	sealed, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !found || err != nil || len(sealed) < saltBytes+overhead {
		return store.Source{}, nil, errChanged
	}
	holder := k.find(id)
	if holder == nil {
		// The keys of the store were all there when it was opened.
		return store.Source{}, nil, fmt.Errorf("%w: it names a key that this store was never sealed with", store.ErrTampered)
	}
	aead, err := holder.cipherOf(sealed[:saltBytes])
	if err != nil {
		return store.Source{}, nil, fmt.Errorf("opening: %w", err)
	}
	text, err := aead.Open(nil, nil, sealed[saltBytes:], additional(partSource, id, channel, controlID))
	if err != nil {
		return store.Source{}, nil, errChanged
	}
	if hasRaw {
		if raw, err = aead.Open(nil, nil, raw, additional(partRaw, id, channel, controlID)); err != nil {
			return store.Source{}, nil, errChanged
		}
	}
	return store.KeptSource(string(text)), raw, nil
}

// checkText is what the check of a key holds.
const checkText = "carewire"

// check returns something by which the key is known again, though not found out.
func (k *key) check() ([]byte, error) {
	salt := make([]byte, saltBytes, saltBytes+overhead+len(checkText))
	_, _ = rand.Read(salt) // it never fails
	aead, err := k.cipherOf(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(salt, nil, []byte(checkText), []byte(k.id)), nil
}

// made tells whether a check is this key's.
func (k *key) made(check []byte) error {
	if len(check) < saltBytes {
		return errors.New("too short")
	}
	aead, err := k.cipherOf(check[:saltBytes])
	if err != nil {
		return err
	}
	_, err = aead.Open(nil, nil, check[saltBytes:], []byte(k.id))
	return err
}
