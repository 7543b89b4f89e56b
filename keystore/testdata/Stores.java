// Makes and dumps key stores, for the tests of package keystore: one process for
// many, because a JVM starts slowly. Run it with java Stores.java.
//
// Each line of the standard input is a command with fields between tabs:
//
//   make FILE TYPE STOREPW ENTRY...   writes a store; entries are
//       key,ALIAS,PW,KEYFILE,CERTFILE,...   a private key and its chain
//       cert,ALIAS,CERTFILE                 a trusted certificate
//       secret,ALIAS,PW,ALGORITHM,HEX       a secret key
//   dump FILE TYPE STOREPW KEYPW      prints FILE, ALIAS, KIND, the key in hex and
//                                     the certificates in hex, between tabs
//   set PROPERTY VALUE                sets a security property, or with a name
//                                     that begins with "keystore.pkcs12.legacy" a
//                                     system property
//
// Passwords and aliases are hex of UTF-16, big-endian. TYPE may be TYPE@PROVIDER.
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.cert.Certificate;
import java.security.spec.*;
import java.util.*;
import javax.crypto.*;
import javax.crypto.spec.*;

public class Stores {
    static final HexFormat HEX = HexFormat.of();

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            String[] f = line.split("\t", -1);
            try {
                switch (f[0]) {
                    case "set" -> {
                        if (f[1].startsWith("keystore.pkcs12.legacy")) {
                            System.setProperty(f[1], f[2]);
                        } else {
                            Security.setProperty(f[1], f[2]);
                        }
                    }
                    case "make" -> make(f);
                    case "dump" -> dump(f, out);
                    default -> throw new IllegalArgumentException(f[0]);
                }
            } catch (Exception e) {
                out.println(f[1] + "\tERROR\t" + e);
            }
        }
        out.flush();
    }

    static String text(String hex) {
        return new String(HEX.parseHex(hex), StandardCharsets.UTF_16BE);
    }

    static KeyStore store(String type) throws Exception {
        String[] t = type.split("@");
        if (t.length == 1) {
            return KeyStore.getInstance(type);
        }
        return KeyStore.getInstance(t[0], (Provider) Class.forName(t[1]).getDeclaredConstructor().newInstance());
    }

    static Certificate[] certs(List<String> files) throws Exception {
        List<Certificate> out = new ArrayList<>();
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        for (String file : files) {
            try (InputStream in = new FileInputStream(file)) {
                out.add(factory.generateCertificate(in));
            }
        }
        return out.toArray(new Certificate[0]);
    }

    static PrivateKey key(String file) throws Exception {
        String pem = Files.readString(Path.of(file)).replaceAll("-----[^-]*-----", "").replaceAll("\\s", "");
        byte[] der = Base64.getDecoder().decode(pem);
        for (String algorithm : List.of("RSASSA-PSS", "RSA", "EC", "EdDSA", "DSA")) {
            try {
                return KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(der));
            } catch (InvalidKeySpecException e) {
                // the next
            }
        }
        throw new InvalidKeySpecException(file);
    }

    static void make(String[] f) throws Exception {
        KeyStore ks = store(f[2]);
        ks.load(null, null);
        for (int i = 4; i < f.length; i++) {
            List<String> e = List.of(f[i].split(",", -1));
            String alias = text(e.get(1));
            switch (e.get(0)) {
                case "key" -> ks.setKeyEntry(alias, key(e.get(3)), text(e.get(2)).toCharArray(), certs(e.subList(4, e.size())));
                case "cert" -> ks.setCertificateEntry(alias, certs(e.subList(2, 3))[0]);
                case "secret" -> {
                    SecretKey k = new SecretKeySpec(HEX.parseHex(e.get(4)), e.get(3));
                    if (e.get(3).startsWith("DES")) {
                        k = SecretKeyFactory.getInstance(e.get(3)).translateKey(k);
                    } else if (e.get(3).startsWith("PBE")) {
                        k = SecretKeyFactory.getInstance(e.get(3)).generateSecret(new PBEKeySpec(text(e.get(4)).toCharArray()));
                    }
                    ks.setKeyEntry(alias, k, text(e.get(2)).toCharArray(), null);
                }
                default -> throw new IllegalArgumentException(e.get(0));
            }
        }
        try (OutputStream o = new FileOutputStream(f[1])) {
            ks.store(o, text(f[3]).toCharArray());
        }
    }

    static void dump(String[] f, PrintStream out) throws Exception {
        KeyStore ks = store(f[2]);
        try (InputStream in = new FileInputStream(f[1])) {
            ks.load(in, text(f[3]).toCharArray());
        }
        for (String alias : Collections.list(ks.aliases())) {
            StringBuilder line = new StringBuilder(f[1]).append('\t').append(HEX.formatHex(alias.getBytes(StandardCharsets.UTF_16BE))).append('\t');
            Certificate[] chain = ks.getCertificateChain(alias);
            if (ks.isKeyEntry(alias)) {
                try {
                    Key k = ks.getKey(alias, text(f[4]).toCharArray());
                    line.append(k instanceof PrivateKey ? "private" : "secret").append('\t').append(HEX.formatHex(k.getEncoded()));
                } catch (Exception e) {
                    line.append("locked\t");
                }
            } else {
                line.append("trusted\t");
                chain = new Certificate[] {ks.getCertificate(alias)};
            }
            for (Certificate c : chain == null ? new Certificate[0] : chain) {
                line.append('\t').append(HEX.formatHex(c.getEncoded()));
            }
            out.println(line);
        }
    }
}
