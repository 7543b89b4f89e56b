// Package tlsprops turns the TLS settings of a connector, as an operator writes
// them, into configurations for crypto/tls, and keeps them up to date while the
// files change on disk.
//
// # From settings to connections
//
// [TlsProperties] is the struct that JSON or YAML fills. [Load] reads the files
// it names and returns a [Source], which hands out the configurations:
//
//	source, err := tlsprops.Load(props)          // reads and checks everything once
//	config, err := source.ServerConfig()         // once for a listener
//	config, err := source.ClientConfig(hostName) // for every connection of a client
//
// A listener runs go source.Watch(ctx). A client calls source.Refresh(ctx) before
// it dials, which costs nothing until ReloadInterval has passed.
//
// # What the settings mean
//
// On a listener, keyStorePath and certStorePath are its own key and certificate,
// and must be there. requireClientCert (or requireClientAuth) demands of clients
// a certificate from a CA in trustStorePath; clientAuth "optional" checks the
// certificates of those who have one.
//
// On a client, trustStorePath holds the CAs that may have issued the server's
// certificate. It replaces the host's roots; trustSystemRoots adds them. The
// certificate must be for the host dialed, or for sniServerName. keyStorePath
// and certStorePath are the certificate to present if the server asks.
//
// Where a peer's certificate cannot meet that, [VerifyMode], expectedName and
// pins say what to check instead. rejectUnauthorized false checks nothing; it
// shows in [Status] as Insecure, and a listener refuses it.
//
// # What is never done
//
// A setting that cannot be honoured is a [FieldError], which names the setting
// and the file and says what to do; nothing falls back to less. There is no TLS
// below 1.2, no suite without ECDHE and authenticated encryption, and no
// half-read file: a bundle with one damaged certificate is refused, not loaded
// without it. No error, event or log line holds a passphrase or the content of a
// file.
//
// Of the four suites that IHE ATNA lists (ITI TF-2 section 3.19.6.2.3) the two
// with ECDHE are there, which any peer that follows it has; crypto/tls has no
// suite with DHE.
//
// In FIPS 140-3 mode (GODEBUG=fips140=on) crypto/tls leaves out what is not
// approved; what of the settings that concerns is among the warnings in [Status].
//
// # Rotation
//
// All files of a Source change together: each look reads every one of them, and
// only a set that parses, fits together and is in date replaces the one before,
// in one atomic step. A handshake sees one set, and reads no file. Otherwise the
// set before is kept, Status().Err says why, and the event [KeptOld] comes.
// Connections in hand go on.
//
// The content decides, not the time of a file or its inode, so every way of
// replacing files is noticed. Under a Kubernetes mount of a Secret or ConfigMap
// all files are read from the one version that ..data names. Files anywhere else
// are used once they have stayed the same for 50 ms. Two directories that are
// swapped separately, say a Secret and a ConfigMap, may be one version apart for
// as long as they are on disk. A file mounted by subPath never changes in
// Kubernetes; mount the whole volume.
//
// Session tickets survive a rotation of the certificate, not one of the CAs or
// revocation lists; after a CA is removed no session that it vouched for resumes.
//
// # Revocation
//
// crlPaths names complete revocation lists, PEM or DER, by the CAs of the chain.
// They are checked in every handshake, resumed ones included. A
// listener staples an OCSP response from a file. A client that verifies the chain
// judges what is stapled: a response must be current, signed for the issuer, and
// call the certificate good (RFC 6066 section 8), and a certificate that demands
// one (RFC 7633) is refused without. It asks no OCSP responder itself.
//
// # Key stores
//
// The files are PEM. This package uses the standard library alone; a program
// that sets Decoder, to that of package keystore for one, can name JKS and
// PKCS#12 files in the same settings.
package tlsprops
