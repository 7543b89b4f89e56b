package cluster

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSecretsAndSumsAreComparedInConstantTimeAlone looks at the source: neither
// Secrets nor arrays or slices of bytes, which is what HMACs, digests and hashes
// of secrets are, are compared by == or by functions that stop at the first
// difference. What is left is crypto/subtle and crypto/hmac.
func TestSecretsAndSumsAreComparedInConstantTimeAlone(t *testing.T) {
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		files = append(files, f)
	}
	require.NotEmpty(t, files)
	assert.Empty(t, unsafeComparisons(t, fset, files))

	// Positive control.
	bad, err := parser.ParseFile(fset, "bad.go", `package cluster
		import ("bytes"; "slices")
		type Secret string
		func f(a, b Secret, c, d [32]byte, e, f []byte, s string) []bool {
			return []bool{a == b, a != b, c == d, string(a) == s, bytes.Equal(e, f), slices.Equal(e, f), a == "", s == ""}
		}
		func g(a Secret) int { switch a { case "x": return 1 }; return 0 }`, 0)
	require.NoError(t, err)
	assert.Len(t, unsafeComparisons(t, fset, []*ast.File{bad}), 7)
}

func unsafeComparisons(t *testing.T, fset *token.FileSet, files []*ast.File) (found []string) {
	info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: importer.Default()}
	_, err := config.Check("cluster", fset, files, info)
	require.NoError(t, err)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				constant := isEmptyString(info, n.X) || isEmptyString(info, n.Y)
				if (n.Op == token.EQL || n.Op == token.NEQ) && !constant && (secretive(info, n.X) || secretive(info, n.Y)) {
					found = append(found, fset.Position(n.Pos()).String())
				}
			case *ast.SwitchStmt:
				if n.Tag != nil && secretive(info, n.Tag) {
					found = append(found, fset.Position(n.Pos()).String())
				}
			case *ast.SelectorExpr:
				f, ok := info.Uses[n.Sel].(*types.Func)
				if ok && slices.Contains([]string{
					"bytes.Equal", "bytes.Compare", "bytes.EqualFold", "strings.EqualFold", "strings.Compare",
					"reflect.DeepEqual", "slices.Equal", "slices.Compare", "cmp.Compare",
				}, f.FullName()) && slices.ContainsFunc(arguments(files, n), func(e ast.Expr) bool { return secretive(info, e) }) {
					found = append(found, fset.Position(n.Pos()).String())
				}
			}
			return true
		})
	}
	return found
}

// arguments returns the arguments with which a function is called.
func arguments(files []*ast.File, fun ast.Expr) (args []ast.Expr) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && call.Fun == fun {
				args = call.Args
			}
			return args == nil
		})
	}
	return args
}

func isEmptyString(info *types.Info, e ast.Expr) bool {
	v := info.Types[e].Value
	return v != nil && v.String() == `""`
}

// secretive reports whether an expression is a Secret, or made from one by a
// conversion, or bytes.
func secretive(info *types.Info, e ast.Expr) bool {
	if call, ok := e.(*ast.CallExpr); ok && len(call.Args) == 1 && info.Types[call.Fun].IsType() {
		return secretive(info, call.Args[0])
	}
	typ := info.Types[e].Type
	if named, ok := typ.(*types.Named); ok && named.Obj().Name() == "Secret" {
		return true
	}
	if typ == nil {
		return false
	}
	var elem types.Type
	switch u := typ.Underlying().(type) {
	case *types.Array:
		elem = u.Elem()
	case *types.Slice:
		elem = u.Elem()
	default:
		return false
	}
	basic, ok := elem.Underlying().(*types.Basic)
	return ok && basic.Kind() == types.Byte
}
