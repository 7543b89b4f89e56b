package carewire_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/carewire/carewire"

// rules says what each public package of the library may link, tests aside:
// packages of this module, and other modules. The standard library is open to
// all. A package that is not listed fails the test, so that a new one starts by
// stating its place.
var rules = map[string]struct {
	packages []string // of this module
	modules  []string // other than this one
}{
	"":         {},
	"cluster":  {},
	"tlsprops": {packages: []string{"internal/pbe"}},
	"keystore": {
		packages: []string{"tlsprops", "internal/pbe"}, // tlsprops for the types of its Decoder
		modules:  []string{"software.sslmate.com/src/go-pkcs12", "golang.org/x/crypto"},
	},
	"dicomtls": {
		packages: []string{"tlsprops", "keystore", "internal/netserver", "internal/proxyproto", "internal/pbe"},
		modules: []string{
			"github.com/suyashkumar/dicom", "golang.org/x/exp", "golang.org/x/text", // the parser, its generics, its character sets
			"software.sslmate.com/src/go-pkcs12", "golang.org/x/crypto", // of keystore
		},
	},
	"httpsender": {
		packages: []string{"tlsprops", "internal/pbe"},
		modules:  []string{"golang.org/x/sync"},
	},
	"meshclient": {
		packages: []string{"httpsender", "tlsprops", "internal/pbe"},
		modules:  []string{"golang.org/x/sync"}, // httpsender's
	},
	"meshclient/meshtest": {
		packages: []string{"meshclient", "httpsender", "tlsprops", "internal/pbe"},
		modules:  []string{"golang.org/x/sync"},
	},
	"mllp": {packages: []string{"tlsprops", "internal/netserver", "internal/proxyproto", "internal/pbe"}},
	"smtpx": {
		packages: []string{"tlsprops", "internal/pbe"},
		modules:  []string{"github.com/wneessen/go-mail", "golang.org/x/crypto", "golang.org/x/text"}, // the last two are go-mail's
	},
}

func TestAnImportedPackageBringsOnlyWhatItsRuleAllows(t *testing.T) {
	for _, pkg := range publicPackages(t) {
		rule, known := rules[pkg]
		if !assert.True(t, known, "package %q has no rule in this test", pkg) {
			continue
		}
		for _, dep := range deps(t, "./"+pkg) {
			path, mod, _ := strings.Cut(dep, " ")
			switch {
			case mod == module:
				own := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
				assert.True(t, own == pkg || slices.Contains(rule.packages, own), "%s links %s of this module", pkg, own)
			case mod != "":
				assert.True(t, slices.Contains(rule.modules, mod), "%s links module %s", pkg, mod)
			}
		}
	}
}

// publicPackages lists the packages of the library that a user can import,
// relative to the module's root.
func publicPackages(t *testing.T) []string {
	t.Helper()
	var pkgs []string
	for _, path := range goList(t, "./...") {
		rel := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
		if !strings.HasPrefix(rel, "internal/") {
			pkgs = append(pkgs, rel)
		}
	}
	require.NotEmpty(t, pkgs)
	return pkgs
}

// deps lists everything that pkg links as "path module", without the standard
// library.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	return goList(t, "-deps", "-f", `{{if not .Standard}}{{.ImportPath}} {{with .Module}}{{.Path}}{{end}}{{end}}`, pkg)
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
	require.NoError(t, err)
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}
