package tlsprops

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
)

// Both errors are found with errors.Is in what Load and Source.Reload return.
var (
	// ErrPassphraseRequired is returned for an encrypted private key if there is
	// no passphrase (and the empty one does not open it).
	ErrPassphraseRequired = errors.New("the key is encrypted and no passphrase is given")

	// ErrIncorrectPassphrase is returned for an encrypted private key that the
	// passphrase does not open. None of the formats tells a wrong passphrase from
	// damaged data.
	ErrIncorrectPassphrase = errors.New("the passphrase is incorrect, or the key is damaged")
)

// parseKey returns the private key of a PEM file and whether it is encrypted
// there, which it also tells with most errors. The file may hold certificates
// and parameters besides, but no second key. The key may be PKCS #8 (RFC 5958),
// PKCS #1 (RFC 8017) or SEC 1 (RFC 5915), encrypted as PKCS #8 or in the
// traditional way of OpenSSL (RFC 1421). An encrypted PKCS #8 key whose
// algorithm is not known goes to decode as it is; nil refuses it.
//
// No error holds anything of the key or the passphrase.
func parseKey(data []byte, passphrase string, decode func(der []byte) (crypto.Signer, error)) (key crypto.Signer, encrypted bool, err error) {
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, false, err
	}
	block, err := keyBlock(blocks)
	switch {
	case err != nil:
		return nil, false, err
	case block == nil && len(blocks) == 0:
		return nil, false, notPEMError(data)
	case block == nil:
		return nil, false, errors.New("no private key")
	}
	key, encrypted, err = block.privateKey(passphrase, decode)
	if err == nil {
		err = CheckKey(key)
	}
	if errors.Is(err, ErrIncorrectPassphrase) && passphrase == "" {
		err = ErrPassphraseRequired
	}
	if err != nil {
		return nil, encrypted, block.at(err)
	}
	return key, encrypted, nil
}

// isPrivateKey tells the block of a private key of any format by its label.
func (b *pemBlock) isPrivateKey() bool {
	return b.label == "PRIVATE KEY" || strings.HasSuffix(b.label, " PRIVATE KEY")
}

// keyBlock returns the one block that is a private key, or nil.
func keyBlock(blocks []pemBlock) (*pemBlock, error) {
	var key *pemBlock
	var certificates bool
	for i := range blocks {
		b := &blocks[i]
		switch {
		case strings.HasSuffix(b.label, "CERTIFICATE"):
			certificates = true
		case !b.isPrivateKey():
		case key != nil:
			return nil, b.errorf("a second private key: the first is block %d (line %d), and a file must hold but one", key.number, key.line)
		default:
			key = b
		}
	}
	if key == nil && certificates {
		return nil, errors.New("certificates but no private key: are the paths of key and certificate swapped?")
	}
	return key, nil
}

// privateKey parses the block, after decrypting it where need be.
func (b *pemBlock) privateKey(passphrase string, decode func(der []byte) (crypto.Signer, error)) (crypto.Signer, bool, error) {
	switch b.label {
	case "OPENSSH PRIVATE KEY":
		return nil, false, errors.New("an OpenSSH private key: convert it with ssh-keygen -p -m PKCS8 -f FILE")
	case "TSS2 PRIVATE KEY":
		return nil, false, errors.New("a key inside a TPM, which cannot be used from a file")
	}
	if b.isTraditionalEncrypted() {
		der, err := b.decryptTraditional(passphrase)
		if err != nil {
			return nil, true, err
		}
		key, err := parseKeyDER(der)
		return key, true, orIncorrect(err)
	}
	if shapeOf(b.der) != shapeEncryptedPKCS8 {
		key, err := parseKeyDER(b.der)
		return key, false, err
	}
	der, err := decryptPKCS8(b.der, passphrase)
	var unknown *unknownAlgorithmError
	if errors.As(err, &unknown) && decode != nil {
		key, err := decode(b.der)
		if err == nil && key == nil {
			err = unknown
		}
		return key, true, err
	}
	if err != nil {
		return nil, true, err
	}
	key, err := parseKeyDER(der)
	return key, true, orIncorrect(err)
}

// orIncorrect turns the error of what has been decrypted and then does not parse
// into ErrIncorrectPassphrase: the padding alone passes in one of 256 cases.
func orIncorrect(err error) error {
	if errors.Is(err, errDamagedKey) {
		return ErrIncorrectPassphrase
	}
	return err
}

// errDamagedKey stands for the errors of the parsers of crypto/x509, whose texts
// could quote what they stumbled over.
var errDamagedKey = errors.New("not a readable private key: damaged or of an unknown kind")

// parseKeyDER parses an unencrypted private key by its structure, whatever its
// label was, as OpenSSL and crypto/tls do.
func parseKeyDER(der []byte) (crypto.Signer, error) {
	var key any
	var err error
	switch shapeOf(der) {
	case shapePKCS8:
		var info struct {
			Version    int
			Algorithm  pkix.AlgorithmIdentifier
			PrivateKey []byte
			// Attributes and the public key may follow.
		}
		if _, err := asn1.Unmarshal(der, &info); err != nil {
			return nil, errDamagedKey
		}
		if err := checkAlgorithm(info.Algorithm); err != nil {
			return nil, err
		}
		key, err = x509.ParsePKCS8PrivateKey(der)
	case shapeSEC1:
		var info struct {
			Version    int
			PrivateKey []byte
			Curve      asn1.RawValue `asn1:"optional"` // in context 0, else there is none
		}
		if _, err := asn1.Unmarshal(der, &info); err != nil {
			return nil, errDamagedKey
		}
		if info.Curve.Class != asn1.ClassContextSpecific || info.Curve.Tag != 0 {
			info.Curve.Bytes = nil
		}
		if err := checkCurve(info.Curve.Bytes); err != nil {
			return nil, err
		}
		key, err = x509.ParseECPrivateKey(der)
	case shapePKCS1:
		key, err = x509.ParsePKCS1PrivateKey(der)
	case shapeDSA:
		return nil, kindError("DSA")
	default:
		return nil, errDamagedKey
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errDamagedKey
	}
	return signer, nil
}

// CheckKey returns why crypto/tls cannot use key, and nil if it can: it would
// otherwise refuse it in each handshake. It is for programs that read keys
// themselves, such as a Decoder.
func CheckKey(key crypto.Signer) error {
	const fewest, fewestFIPS = 1024, 2048 // bits; crypto/rsa's own limits
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		switch bits := public.N.BitLen(); {
		case bits < fewest:
			return fmt.Errorf("an RSA key of %d bits: crypto/tls refuses keys of less than %d", bits, fewest)
		case bits < fewestFIPS && fips140.Enforced():
			return fmt.Errorf("an RSA key of %d bits, which is not allowed in FIPS 140-only mode", bits)
		}
		return nil
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return kindError("ECDSA " + public.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	default:
		return kindError(fmt.Sprintf("%T", public))
	}
}

func kindError(kind string) error {
	return fmt.Errorf("a key of the kind %s, which crypto/tls cannot use: it takes RSA, ECDSA P-256, P-384 or P-521, and Ed25519", kind)
}

// keyKinds names the algorithms of PKCS #8 that crypto/x509 does not parse or
// crypto/tls does not use.
var keyKinds = map[string]string{
	"1.2.840.10040.4.1":       "DSA",
	"1.2.840.113549.1.1.7":    "RSA-OAEP",
	"1.2.840.113549.1.1.10":   "RSA-PSS",
	"1.2.840.113549.1.3.1":    "Diffie-Hellman",
	"1.2.840.10046.2.1":       "Diffie-Hellman",
	"1.3.101.110":             "X25519",
	"1.3.101.111":             "X448",
	"1.3.101.113":             "Ed448",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}

// checkAlgorithm refuses a PKCS #8 key that cannot be used, by name.
func checkAlgorithm(algorithm pkix.AlgorithmIdentifier) error {
	switch oid := algorithm.Algorithm.String(); oid {
	case "1.2.840.113549.1.1.1", "1.3.101.112": // RSA, Ed25519
		return nil
	case "1.2.840.10045.2.1": // EC
		return checkCurve(algorithm.Parameters.FullBytes)
	default:
		kind, ok := keyKinds[oid]
		if !ok {
			kind = oid
		}
		return kindError(kind)
	}
}

// curves names the curves that crypto/tls does not sign with.
var curves = map[string]string{
	"1.2.840.10045.3.1.1":   "P-192",
	"1.3.132.0.33":          "P-224",
	"1.3.132.0.10":          "secp256k1",
	"1.2.156.10197.1.301":   "SM2",
	"1.3.36.3.3.2.8.1.1.7":  "brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.8":  "brainpoolP256t1",
	"1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.12": "brainpoolP384t1",
	"1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
	"1.3.36.3.3.2.8.1.1.14": "brainpoolP512t1",
}

// checkCurve refuses the ECParameters (RFC 5480 section 2.1.1) of a curve that
// cannot be used, by name.
func checkCurve(parameters []byte) error {
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(parameters, &oid); err != nil {
		if len(parameters) > 0 {
			return kindError("EC with explicit parameters (convert it with openssl ec -param_enc named_curve)")
		}
		return kindError("EC without the name of its curve")
	}
	switch name := oid.String(); name {
	case "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35": // P-256, P-384, P-521
		return nil
	default:
		if curves[name] != "" {
			name = curves[name]
		}
		return kindError("ECDSA " + name)
	}
}
