package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
)

// properties is a file with all that the format has.
const properties = "# a comment with a backslash \\\n" +
	"! and another\n\n" +
	"  keystore.storepass = with\\=equals and\\\\backslash  \r\n" +
	"keystore.keypass:colon:inside\n" +
	"spaced value of words\n" +
	"long = one \\\n" +
	"       two\\\r\n" +
	"\tthree\n" +
	"even = ends with a backslash \\\\\n" +
	"unicode = p\\u00e4ss\\uD83D\\uDE00w\n" +
	"latin = p\xe4ss\n" +
	"escapes = \\t\\n\\r\\f\\q\\\xe4\n" +
	"key\\ with\\:all\\=of\\u0041it = x\n" +
	"nothing\n" +
	"equals =\n" +
	"twice = first\n" +
	"twice = last\n" +
	"end = goes on\\"

func TestPropertiesAreReadAsJavaReadsThem(t *testing.T) {
	assert.Equal(t, map[string]string{
		"keystore.storepass": `with=equals and\backslash  `,
		"keystore.keypass":   "colon:inside",
		"spaced":             "value of words",
		"long":               "one twothree",
		"even":               `ends with a backslash \`,
		"unicode":            "päss😀w",
		"latin":              "päss",
		"escapes":            "\t\n\r\fqä",
		"key with:all=ofAit": "x",
		"nothing":            "",
		"equals":             "",
		"twice":              "last",
		"end":                "goes on",
	}, parseProperties([]byte(properties)))
}

// The same file read by Java itself.
func TestJavaReadsTheSameProperties(t *testing.T) {
	java := interop.Need(t, "java")
	source := filepath.Join(t.TempDir(), "Show.java")
	require.NoError(t, os.WriteFile(source, []byte(`import java.nio.charset.StandardCharsets;
public class Show {
    public static void main(String[] args) throws Exception {
        var p = new java.util.Properties();
        p.load(System.in);
        var out = new java.io.PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (var k : p.stringPropertyNames()) { out.print(k + "\0" + p.getProperty(k) + "\0"); }
    }
}
`), 0o600))
	cmd := exec.CommandContext(t.Context(), java, source)
	cmd.Stdin = strings.NewReader(properties)
	out, err := cmd.Output()
	require.NoError(t, err)
	theirs := make(map[string]string)
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		theirs[fields[i]] = fields[i+1]
	}
	assert.Equal(t, theirs, parseProperties([]byte(properties)))
}

func FuzzPropertiesNeverPanic(f *testing.F) {
	f.Add([]byte(properties))
	f.Add([]byte("a\\"))
	f.Add([]byte("\\u12"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for key, value := range parseProperties(data) {
			if len(key)+len(value) > 3*len(data) {
				t.Errorf("%d bytes became %d", len(data), len(key)+len(value))
			}
		}
	})
}
