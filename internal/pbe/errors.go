package pbe

import (
	"errors"
	"fmt"
)

// ErrIncorrect is returned by [Scheme.Decrypt] for a password that opens
// nothing. Nothing here tells a wrong password from damaged data.
var ErrIncorrect = errors.New("the password is incorrect, or the data is damaged")

// UnsupportedError is the error for an algorithm that is not known here, or that
// the FIPS 140-only mode forbids.
type UnsupportedError struct {
	OID  string // dotted; empty if it is not the algorithm itself that is forbidden
	Name string // empty if it has none here
	FIPS bool   // known, but not allowed in this mode
}

// Error names the algorithm.
func (e *UnsupportedError) Error() string {
	switch {
	case e.FIPS:
		return e.Name + ", which is not allowed in FIPS 140-only mode"
	case e.Name != "":
		return fmt.Sprintf("%s (%s), which is not known here", e.Name, e.OID)
	default:
		return e.OID + ", which is not known here"
	}
}

func forbidden(oid, name string) error { return &UnsupportedError{OID: oid, Name: name, FIPS: true} }

func unknown(oid string) error { return &UnsupportedError{OID: oid, Name: unknownAlgorithms[oid]} }

// LimitError is the error for parameters that ask for more than is granted.
type LimitError struct {
	What       string
	Asked, Max int
}

// Error says what was asked and what is granted.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%d %s: between 1 and %d are accepted", e.Asked, e.What, e.Max)
}

// unknownAlgorithms names what is known to occur, for the error message.
var unknownAlgorithms = map[string]string{
	"1.2.840.113549.1.5.1":      "PBE-MD2-DES",
	"1.2.840.113549.1.5.4":      "PBE-MD2-RC2-64",
	"1.3.6.1.4.1.11591.4.11":    "scrypt",
	"1.3.14.3.2.7":              "DES-CBC",
	"1.2.840.113549.3.2":        "RC2-CBC",
	"1.2.840.113533.7.66.10":    "CAST5-CBC",
	"1.2.392.200011.61.1.1.1.2": "Camellia-128-CBC",
	"1.2.392.200011.61.1.1.1.3": "Camellia-192-CBC",
	"1.2.392.200011.61.1.1.1.4": "Camellia-256-CBC",
	"1.2.410.200046.1.1.2":      "ARIA-128-CBC",
	"1.2.410.200046.1.1.7":      "ARIA-192-CBC",
	"1.2.410.200046.1.1.12":     "ARIA-256-CBC",
	"1.2.156.10197.1.104.2":     "SM4-CBC",
	"2.16.840.1.101.3.4.1.6":    "AES-128-GCM",
	"2.16.840.1.101.3.4.1.26":   "AES-192-GCM",
	"2.16.840.1.101.3.4.1.46":   "AES-256-GCM",
	"2.16.840.1.101.3.4.1.4":    "AES-128-CFB",
	"2.16.840.1.101.3.4.1.24":   "AES-192-CFB",
	"2.16.840.1.101.3.4.1.44":   "AES-256-CFB",
}
