package pbe

import (
	"encoding/binary"
	"hash"
	"unicode/utf16"
	"unicode/utf8"
)

// What a key of the PKCS #12 derivation is for (RFC 7292 appendix B.3).
const (
	PKCS12ForKey = 1
	PKCS12ForIV  = 2
	PKCS12ForMAC = 3
)

// PKCS12Key derives n bytes (RFC 7292 appendix B.2). password is in one of the
// spellings of PKCS12Passwords. The caller has checked salt and iterations with
// [CheckKDF], and that the mode allows the hash.
func PKCS12Key(newHash func() hash.Hash, purpose byte, password, salt []byte, iterations, n int) []byte {
	h := newHash()
	v := h.BlockSize()
	d := make([]byte, v)
	for i := range d {
		d[i] = purpose
	}
	in := append(fillBlocks(salt, v), fillBlocks(password, v)...)
	var key []byte
	a := make([]byte, 0, h.Size())
	for len(key) < n {
		h.Reset()
		h.Write(d)
		h.Write(in)
		a = h.Sum(a[:0])
		for range iterations - 1 {
			h.Reset()
			h.Write(a)
			a = h.Sum(a[:0])
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

// PKCS12Passwords returns the spellings of a password that PKCS #12 may mean:
// UTF-16 with a NUL at the end, and for the empty password also no bytes at
// all, for programs do it either way. Like OpenSSL it takes bytes that are not
// UTF-8 for ISO 8859-1.
func PKCS12Passwords(password string) [][]byte {
	var runes []rune
	if utf8.ValidString(password) {
		runes = []rune(password)
	} else {
		for _, b := range []byte(password) {
			runes = append(runes, rune(b))
		}
	}
	var out []byte
	for _, u := range utf16.Encode(append(runes, 0)) {
		out = binary.BigEndian.AppendUint16(out, u)
	}
	if password == "" {
		return [][]byte{out, nil}
	}
	return [][]byte{out}
}
