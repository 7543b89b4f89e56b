#!/usr/bin/env bash
# Makes the golden files of this folder anew, with everything that is random in
# them. See README.md for the programs and their versions.
#
#   JAVA=java JAVA25=/path/to/jdk-25/bin/java BCPROV=/path/to/bcprov.jar ./make.sh
set -euo pipefail
cd "$(dirname "$0")"
JAVA=${JAVA:-java} JAVA25=${JAVA25:-java} BCPROV=${BCPROV:-/usr/share/java/bcprov.jar}
rm -rf pki stores
mkdir pki stores

hex() { printf %s "$1" | iconv -f UTF-8 -t UTF-16BE | od -An -v -tx1 | tr -d ' \n'; }
legacy=(-provider legacy -provider default)
PW=changeit KEYPW=other-secret

# --- keys, and chains of three: leaf, intermediate, root ---------------------
genkey() { openssl genpkey "${@:2}" -out "pki/$1.key" 2>/dev/null; }
ext() { printf 'basicConstraints=critical,CA:%s\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n%s\n' "$1" "${2:-}"; }
genkey root -algorithm EC -pkeyopt ec_paramgen_curve:P-256
genkey int -algorithm EC -pkeyopt ec_paramgen_curve:P-256
genkey other -algorithm EC -pkeyopt ec_paramgen_curve:P-256
openssl req -x509 -key pki/root.key -subj /CN=root -days 36500 -out pki/root.crt
openssl req -x509 -key pki/other.key -subj /CN=other -days 36500 -out pki/other.crt
openssl req -new -key pki/int.key -subj /CN=int | openssl x509 -req -CA pki/root.crt -CAkey pki/root.key -days 36500 -extfile <(ext TRUE) -out pki/int.crt 2>/dev/null
genkey rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
genkey pss -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
genkey ec256 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
genkey ec384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
genkey ec521 -algorithm EC -pkeyopt ec_paramgen_curve:P-521
genkey brainpool -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1
genkey secp256k1 -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1
genkey ed25519 -algorithm ED25519
genkey ed448 -algorithm ED448
genkey x25519 -algorithm X25519
openssl dsaparam -genkey 2048 2>/dev/null | openssl pkcs8 -topk8 -nocrypt -out pki/dsa.key
genkey rsa1024 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
for kind in rsa pss ec256 ec384 ec521 brainpool secp256k1 ed25519 ed448 dsa x25519 rsa1024; do
	san="subjectAltName=DNS:localhost"
	openssl req -new -key pki/ec256.key -subj "/CN=$kind" |
		openssl x509 -req -force_pubkey <(openssl pkey -in "pki/$kind.key" -pubout) -CA pki/int.crt -CAkey pki/int.key -days 36500 -extfile <(ext FALSE "$san") -out "pki/$kind.crt" 2>/dev/null
done
# Doubtful certificates of the key ec256.
openssl req -x509 -key pki/ec256.key -subj /CN=negative -set_serial -5 -days 36500 -out pki/negative.crt
openssl req -new -key pki/ec256.key -subj /CN=expired |
	openssl x509 -req -CA pki/int.crt -CAkey pki/int.key -days -1 -out pki/expired.crt 2>/dev/null
openssl req -new -key pki/ec256.key -subj /CN=sha1 |
	openssl x509 -req -sha1 -CA pki/int.crt -CAkey pki/int.key -days 36500 -out pki/sha1.crt 2>/dev/null
# The intermediate again, issued by another root (cross-signed).
openssl x509 -req -in <(openssl req -new -key pki/int.key -subj /CN=int) -CA pki/other.crt -CAkey pki/other.key -days 36500 -extfile <(ext TRUE) -out pki/int-cross.crt 2>/dev/null
rm -f pki/*.srl

# --- Java --------------------------------------------------------------------
line() { local IFS=$'\t'; printf '%s\n' "$*"; }
key() { local IFS=,; local kind=$1 pw=$2; printf 'key,%s,%s,pki/%s.key,pki/%s.crt,pki/int.crt,pki/root.crt' "$(hex "${3:-$kind}")" "$(hex "$pw")" "$kind" "$kind"; }
cert() { printf 'cert,%s,pki/%s.crt' "$(hex "${2-$1}")" "$1"; }
secret() { printf 'secret,%s,%s,%s,%s' "$(hex "$1")" "$(hex "$2")" "$3" "$4"; }
javakinds=(rsa pss ec256 ec384 ec521 ed25519 dsa)
allkeys() { local all=() kind; for kind in "${javakinds[@]}"; do all+=("$(key "$kind" "$1")"); done; line "${all[@]}"; }
secrets() {
	line "$(secret aes "$1" AES 000102030405060708090a0b0c0d0e0f)" "$(secret hmac "$1" HmacSHA256 "$(printf '11%.0s' {1..32})")" \
		"$(secret tripledes "$1" DESede 0102040708080b0d0e0e10131515161901020407080b0d0e)" "$(secret pbe "$1" PBE "$(hex 'a password')")"
}
pw=$(hex "$PW") kpw=$(hex "$KEYPW")
{
	for type in JKS JCEKS PKCS12; do
		lower=${type,,}
		line make "stores/kinds.$lower" $type "$pw" "$(allkeys "$PW")"
		line make "stores/trust.$lower" $type "$pw" "$(cert root)" "$(cert other)"
		line make "stores/keyplusca.$lower" $type "$pw" "$(cert root aaa-ca)" "$(key rsa "$PW" server)" "$(cert other zzz-ca)"
		line make "stores/empty.$lower" $type "$pw"
		line make "stores/aliases.$lower" $type "$pw" "$(cert root 'grüße')" "$(cert int '鍵')" "$(cert other '🔑')" "$(cert ec256 '')"
	done
	for type in JKS JCEKS; do
		lower=${type,,}
		line make "stores/keypass.$lower" $type "$pw" "$(key ec256 "$KEYPW")" "$(key ec384 "$PW")"
		for n in latin1:pässwörd cjk:暗号 emoji:p😀w empty: spaces:'  spaces  '; do
			line make "stores/password-${n%%:*}.$lower" $type "$(hex "${n#*:}")" "$(key ec256 "$PW")"
		done
	done
	# JCEKS takes ASCII for keys.
	line make stores/keypass-unicode.jks JKS "$pw" "$(key ec256 'schlüssel😀')"
	line make stores/secrets.jceks JCEKS "$pw" "$(key ec256 "$PW" a-key)" "$(secrets "$PW")" "$(cert root z-ca)"
	line make stores/secrets.pkcs12 PKCS12 "$pw" "$(secret aes "$PW" AES 000102030405060708090a0b0c0d0e0f)" "$(secret hmac "$PW" HmacSHA256 "$(printf '11%.0s' {1..32})")"
	# As Mirth makes it on its first start: JCEKS, its own key and the key for
	# encrypted messages, and two random passwords of twelve characters.
	line make stores/mirth.jks JCEKS "$(hex KqVh3TtYwR8a)" "$(key rsa Zx81mPnLcD0e mirthconnect)" "$(secret encryption Zx81mPnLcD0e AES 101112131415161718191a1b1c1d1e1f)"
	line make stores/keypass.pkcs12 PKCS12 "$pw" "$(key ec256 "$KEYPW")" "$(key ec384 "$PW")"
	line set keystore.pkcs12.certProtectionAlgorithm NONE
	line set keystore.pkcs12.macAlgorithm NONE
	line make stores/passwordless-trust.pkcs12 PKCS12 "$pw" "$(cert root)" "$(cert other)"
	line set keystore.pkcs12.certProtectionAlgorithm PBEWithHmacSHA256AndAES_256
	line set keystore.pkcs12.macAlgorithm HmacPBESHA512
	line make stores/mac-sha512.pkcs12 PKCS12 "$pw" "$(key ec256 "$PW")"
	line set keystore.pkcs12.macAlgorithm HmacPBESHA224
	line make stores/mac-sha224.pkcs12 PKCS12 "$pw" "$(key ec256 "$PW")"
} | "$JAVA" Stores.java
{ line make stores/legacy.pkcs12 PKCS12 "$pw" "$(key ec256 "$PW")" "$(cert root)"; } | "$JAVA" -Dkeystore.pkcs12.legacy Stores.java
{
	for type in JKS JCEKS PKCS12; do line make "stores/jdk25.${type,,}" $type "$pw" "$(key ec256 "$PW")" "$(cert root)"; done
	line make stores/jdk25-unicode.pkcs12 PKCS12 "$(hex 'pässwörd')" "$(key ec256 'pässwörd')"

} | "$JAVA25" Stores.java
# JDK 17 writes an HMAC where a hash belongs with this setting.
{ line set keystore.pkcs12.macAlgorithm PBEWithHmacSHA256; line make stores/jdk17-wrong-mac.pkcs12 PKCS12 "$pw" "$(key ec256 "$PW")"; } | "$JAVA" Stores.java
{
	bc=org.bouncycastle.jce.provider.BouncyCastleProvider
	line make stores/bc.pkcs12 "PKCS12@$bc" "$pw" "$(key ec256 "$PW")" "$(cert root)"
	line make stores/bc.bks "BKS@$bc" "$pw" "$(key ec256 "$PW")"
	line make stores/bc.uber "UBER@$bc" "$pw" "$(key ec256 "$PW")"
	line make stores/bc.bcfks "BCFKS@$bc" "$pw" "$(key ec256 "$PW")"
} | "$JAVA" -cp "$BCPROV" Stores.java

# --- OpenSSL -----------------------------------------------------------------
p12() { openssl pkcs12 -export -inkey pki/ec256.key -in pki/ec256.crt -certfile <(cat pki/root.crt pki/int.crt) -name server -passout "pass:${OPASS-$PW}" "${@:2}" "${legacy[@]}" -out "stores/o-$1.p12"; }
p12 default
for kind in rsa pss ec256 ec384 ec521 brainpool secp256k1 ed25519 ed448 dsa; do
	openssl pkcs12 -export -inkey "pki/$kind.key" -in "pki/$kind.crt" -certfile pki/int.crt -name "$kind" -passout "pass:$PW" -out "stores/o-kind-$kind.p12"
done
for alg in PBE-SHA1-3DES PBE-SHA1-2DES PBE-SHA1-RC2-128 PBE-SHA1-RC2-40 PBE-SHA1-RC4-128 PBE-SHA1-RC4-40 PBE-MD5-DES PBE-SHA1-DES AES-128-CBC AES-192-CBC DES-EDE3-CBC; do
	p12 "pbe-${alg,,}" -keypbe "$alg" -certpbe "$alg"
done
for alg in camellia-128-cbc aria-128-cbc; do p12 "pbe-$alg" -keypbe "$alg" -certpbe "$alg"; done
for alg in sha1 sha224 sha256 sha384 sha512 sha512-224 sha512-256 sha3-256 sha3-512 md5 sm3; do p12 "mac-$alg" -macalg "$alg"; done
p12 nomac -nomac
p12 nomac-keybag -nomac -keypbe NONE -certpbe NONE
p12 keybag -keypbe NONE -certpbe NONE
p12 legacy -legacy
p12 iterations-1 -iter 1 -maciter
OPASS='' p12 password-empty
OPASS='pässwörd' p12 password-latin1
OPASS='暗号' p12 password-cjk
OPASS='p😀w' p12 password-emoji
OPASS='p😀w' p12 password-emoji-legacy -legacy
openssl pkcs12 -export -nokeys -in <(cat pki/root.crt pki/other.crt) -passout "pass:$PW" -out stores/o-cafile.p12
openssl pkcs12 -export -nocerts -inkey pki/ec256.key -passout "pass:$PW" -out stores/o-keyonly.p12 2>/dev/null
openssl pkcs12 -export -inkey pki/ec256.key -in <(cat pki/root.crt pki/int.crt pki/int-cross.crt pki/ec256.crt) -passout "pass:$PW" -out stores/o-shuffled.p12
openssl pkcs12 -export -inkey pki/ec256.key -in pki/negative.crt -passout "pass:$PW" -out stores/o-negative-serial.p12
openssl pkcs12 -export -inkey pki/ec256.key -in pki/expired.crt -passout "pass:$PW" -out stores/o-expired.p12
openssl pkcs12 -export -inkey pki/ec256.key -in pki/sha1.crt -certfile pki/int.crt -passout "pass:$PW" -out stores/o-sha1.p12
openssl pkcs12 -export -inkey pki/rsa1024.key -in pki/rsa1024.crt -passout "pass:$PW" -out stores/o-rsa1024.p12
openssl pkcs8 -topk8 -in pki/ec256.key -scrypt -passout "pass:$PW" -out stores/scrypt.pem
openssl pkcs8 -topk8 -in pki/ec256.key -passout "pass:$PW" -outform DER -out stores/encrypted.der
openssl crl2pkcs7 -nocrl -certfile pki/root.crt -outform DER -out stores/bundle.p7b

# --- GnuTLS ------------------------------------------------------------------
g() { certtool --to-p12 --load-privkey pki/ec256.key --load-certificate pki/ec256.crt --load-ca-certificate pki/int.crt --p12-name server --outder --outfile "stores/g-$1.p12" "${@:2}" 2>/dev/null; }
g aes-128 --pkcs-cipher aes-128 --password "$PW"
g aes-256 --pkcs-cipher aes-256 --password "$PW"
g 3des --pkcs-cipher 3des --password "$PW"
g 3des-pkcs12 --pkcs-cipher 3des-pkcs12 --password "$PW"
g rc2-40 --pkcs-cipher rc2-40 --password "$PW"
g arcfour --pkcs-cipher arcfour --password "$PW"
g null-password --null-password
g empty-password --empty-password

# --- NSS ---------------------------------------------------------------------
nss=$(mktemp -d)
certutil -N -d "sql:$nss" --empty-password
pk12util -i stores/o-default.p12 -d "sql:$nss" -W "$PW" >/dev/null
for cipher in AES-256-CBC AES-128-CBC DES-EDE3-CBC; do
	pk12util -o "stores/n-${cipher,,}.p12" -n server -d "sql:$nss" -W "$PW" -c "$cipher" -C "$cipher" >/dev/null
done
pk12util -o stores/n-default.p12 -n server -d "sql:$nss" -W "$PW" >/dev/null
pk12util -o stores/n-unicode.p12 -n server -d "sql:$nss" -W 'pässwörd' >/dev/null
rm -rf "$nss"
chmod 644 pki/* stores/*
