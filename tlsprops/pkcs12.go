package tlsprops

import (
	"crypto/sha1"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// What a key of the PKCS #12 derivation is for (RFC 7292 appendix B.3).
const (
	pkcs12ForKey = 1
	pkcs12ForIV  = 2
)

// pkcs12Key derives n bytes with SHA-1 (RFC 7292 appendix B.2). password is in
// the encoding of bmpPasswords.
func pkcs12Key(purpose byte, password, salt []byte, iterations, n int) []byte {
	const v = sha1.BlockSize
	d := make([]byte, v)
	for i := range d {
		d[i] = purpose
	}
	in := append(fillBlocks(salt, v), fillBlocks(password, v)...)
	var key []byte
	for len(key) < n {
		sum := sha1.New()
		sum.Write(d)
		sum.Write(in)
		a := sum.Sum(nil)
		for range iterations - 1 {
			next := sha1.Sum(a)
			copy(a, next[:])
		}
		key = append(key, a...)
		addBlocks(in, fillBlocks(a, v)[:v])
	}
	return key[:n]
}

// fillBlocks repeats data up to a whole number of blocks of size v.
func fillBlocks(data []byte, v int) []byte {
	out := make([]byte, (len(data)+v-1)/v*v)
	for n := 0; n < len(out); {
		n += copy(out[n:], data)
	}
	return out
}

// addBlocks sets each block of in to itself plus b plus one, modulo 2^(8*len(b)).
func addBlocks(in, b []byte) {
	for ; len(in) > 0; in = in[len(b):] {
		carry := 1
		for i := len(b) - 1; i >= 0; i-- {
			carry += int(in[i]) + int(b[i])
			in[i] = byte(carry)
			carry >>= 8
		}
	}
}

// bmpPasswords returns the encodings of a passphrase that PKCS #12 may mean:
// UTF-16 with a NUL at the end, and for the empty passphrase also no bytes at
// all, for programs do it either way. Like OpenSSL it takes bytes that are not
// UTF-8 for ISO 8859-1.
func bmpPasswords(passphrase string) [][]byte {
	var runes []rune
	if utf8.ValidString(passphrase) {
		runes = []rune(passphrase)
	} else {
		for _, b := range []byte(passphrase) {
			runes = append(runes, rune(b))
		}
	}
	var password []byte
	for _, u := range utf16.Encode(append(runes, 0)) {
		password = binary.BigEndian.AppendUint16(password, u)
	}
	if passphrase == "" {
		return [][]byte{password, nil}
	}
	return [][]byte{password}
}
