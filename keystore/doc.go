// Package keystore opens the key stores of Java programs, and what else certain
// systems keep private keys and certificates in, for use with crypto/tls or for
// conversion to PEM. There is one function to open any of them:
//
//	s, err := keystore.OpenFile("appdata/keystore.jks", keystore.Options{Password: "changeit"})
//
// # Formats
//
// The content tells the format, never the name of the file: a .jks of Java 9 or
// later is PKCS#12, and that of a Mirth installation is JCEKS.
//
//   - JKS and JCEKS, versions 1 and 2, with private keys, trusted certificates
//     and (JCEKS) secret keys, under different passwords for store and keys.
//   - PKCS#12 (RFC 7292) in DER and BER, with any number of safes, keys and
//     aliases, with or without MAC (HMAC with SHA-1, SHA-2 or SHA-3, and RFC
//     9579's PBMAC1), encrypted with PBES2 or any of the older schemes but MD2's.
//   - PEM and single DER files: certificates, and keys of PKCS#8, PKCS#1 and SEC
//     1, encrypted or not.
//
// BKS, UBER, BCFKS, KDB, NSS databases, PKCS#7, OpenSSH and PuTTY files are
// refused with an [*UnsupportedFormatError] that has the command to convert
// them.
//
// # Entries
//
// A [Store] has entries: a private key with its chain, a trusted certificate, a
// certificate of no role, or a secret key. They keep the bytes of the file: a key
// that crypto/x509 cannot parse (DSA, RSASSA-PSS, brainpool, Ed448) is written
// to PEM just as openssl would write it, and [Entry.UsableForTLS] says why
// crypto/tls cannot use it. The certificate of a key is found by the public key,
// the local key ID and the alias, and its chain by the issuers, never by the
// order of the file.
//
// An entry that does not open, because its password is another one, has an Err;
// the others are there nevertheless. What is doubtful but works is in
// [Store.Warnings].
//
// # Hostile files
//
// Open takes files from outside. It does not panic; it reads 8 MiB at most, of
// which no length or count makes it allocate more; it counts the iterations of
// key derivation before it computes them, and stops at 5,000,000 for the whole
// file. [Options] has the limits.
//
// No format can tell a wrong password from an altered file, and the digest of JKS
// and JCEKS is weaker than it looks: it stops accidents, and strangers who do not
// know the password.
//
// # FIPS
//
// With GODEBUG=fips140=only what that mode forbids is an
// [*UnsupportedAlgorithmError]: every JKS and JCEKS file with a password, every
// PKCS#12 file with a MAC but for PBMAC1, keys encrypted otherwise than PBES2
// with AES and SHA-2, or with a salt of less than 16 bytes. Options.AllowLegacyInFIPS
// lets the files be opened all the same.
package keystore
