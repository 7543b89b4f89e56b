// Package carewire is the root of a family of TLS-capable healthcare
// connectors. It holds no code: import the package of the protocol you need, and
// you get that connector and nothing else.
//
//   - [github.com/carewire/carewire/tlsprops] turns a typed, JSON- and
//     YAML-friendly TLS configuration into a *tls.Config that renews itself when
//     the files change.
//   - [github.com/carewire/carewire/keystore] opens the key stores of Java
//     programs, for crypto/tls or to convert them to PEM.
//   - [github.com/carewire/carewire/mllp] listens and dials MLLP, the transport
//     of HL7 version 2, in plain and over TLS.
//   - [github.com/carewire/carewire/dicomtls] sends, receives and stores DICOM
//     objects, in plain, in the TLS of older equipment and in today's.
//   - [github.com/carewire/carewire/httpsender] sends HTTP requests through pools
//     of connections, and repeats none that may have had its effect.
//   - [github.com/carewire/carewire/meshclient] sends and receives over NHS MESH,
//     verified, streaming, and resumable where it was interrupted.
//   - [github.com/carewire/carewire/smtpx] sends mail that leaves encrypted or not
//     at all, and tells of every recipient.
//   - [github.com/carewire/carewire/cluster] protects the endpoints by which the
//     nodes of a cluster talk to each other with a secret that they share.
//
// All of them make the same three promises, in this order: never less secure
// than configured, never acknowledged and lost, small enough to read.
//
// The engine and the command-line tool that are built from them live in the
// module github.com/carewire/carewire/examples, whose dependencies never reach
// an importer of the library.
package carewire
