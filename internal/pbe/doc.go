// Package pbe decrypts what is encrypted under a password: private keys in PEM
// files and the contents of PKCS #12 key stores. It knows PBES1 and PBES2 (RFC
// 8018) and the schemes of PKCS #12 (RFC 7292 appendices B and C), with every
// hash and cipher of them that occurs and that the standard library has, and
// RC2 besides.
//
// [Parse] looks at an AlgorithmIdentifier and refuses what asks for too much
// before anything is computed; [Scheme.Cost] says what is left to pay, so that a
// caller can keep an account over many of them; [Scheme.Decrypt] pays it.
//
// No error holds anything of a password or of decrypted data.
package pbe
