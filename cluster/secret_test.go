package cluster_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
	"github.com/carewire/carewire/internal/interop"
)

func TestTheOutputOfTheGuidesCommandIsAGoodSecret(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	for _, args := range [][]string{{"rand", "-base64", "32"}, {"rand", "-hex", "16"}, {"rand", "-hex", "32"}} {
		out, err := exec.CommandContext(t.Context(), openssl, args...).Output()
		require.NoError(t, err)
		auth := cluster.Auth{Node: "node-a", Secret: cluster.Secret(strings.TrimSpace(string(out)))}
		assert.NoError(t, auth.Validate(), args)
	}
}

func TestSecretsThatCanBeGuessedAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		secret cluster.Secret
		is     error
		text   string
	}{
		"none":                           {"", cluster.ErrNoSecret, "openssl rand -base64 32"},
		"the guide's placeholder":        {"your-strong-random-secret-here", cluster.ErrWeakSecret, "placeholder"},
		"the placeholder, made long":     {"your-strong-random-secret-here-0123456789abcdefghij", cluster.ErrWeakSecret, "placeholder"},
		"a default of charts":            {"changeme", cluster.ErrWeakSecret, "placeholder"},
		"a default, written otherwise":   {"Please_Change-Me! Please_Change-Me! now", cluster.ErrWeakSecret, "placeholder"},
		"the name of the guide's Secret": {"mirth-cluster-secret-in-production", cluster.ErrWeakSecret, "placeholder"},
		"31 bytes":                       {secretA[:31], cluster.ErrWeakSecret, "31 bytes"},
		"one character":                  {cluster.Secret(strings.Repeat("x", 44)), cluster.ErrWeakSecret, "different characters"},
		"a word again and again":         {cluster.Secret(strings.Repeat("hospital-7", 5)), cluster.ErrWeakSecret, "repeats"},
		"too long":                       {cluster.Secret(strings.Repeat(string(secretA[:43]), 24)), nil, "1024"},
		"a line's end":                   {secretA + "\n", nil, "line's end"},
		"a space before":                 {" " + secretA, nil, "space"},
		"a line's end within":            {secretA + "\n" + secretB, nil, "printable ASCII"},
		"letters of another alphabet":    {"grüße" + secretA, nil, "printable ASCII"},
		"a variable nobody replaced":     {"${MIRTH_CLUSTER_SECRET}", nil, "variable"},
		"a command nobody ran":           {"$(openssl rand -base64 32 | head)", nil, "variable"},
	} {
		t.Run(name, func(t *testing.T) {
			auth := &cluster.Auth{Node: "node-a", Secret: test.secret}
			err := auth.Validate()
			require.Error(t, err)
			field, ok := err.(*cluster.FieldError) //nolint:errorlint // the type that is promised
			require.True(t, ok, "%T", err)
			assert.Equal(t, "secret", field.Field)
			assert.ErrorContains(t, err, test.text)
			if test.is != nil {
				assert.ErrorIs(t, err, test.is)
			}
			if len(test.secret) > 20 && test.text != "variable" {
				assert.NotContains(t, err.Error(), string(test.secret[:20]), "quotes the secret")
			}

			next := &echo{}
			r := post(t, "{}")
			r.Header.Set(cluster.Header, string(test.secret))
			requireRefused(t, give(auth.Handler(next), r))
			assert.Zero(t, next.count())
		})
	}
}

func TestAWeakSecretIsRefusedAmongThoseThatAreOnlyAccepted(t *testing.T) {
	auth := &cluster.Auth{Node: "node-a", Secret: secretA, Accept: []cluster.Secret{secretB, "changeme"}}
	err := auth.Validate()
	require.ErrorIs(t, err, cluster.ErrWeakSecret)
	assert.ErrorContains(t, err, "accept[1]")
}

func TestASecretNeverShows(t *testing.T) {
	auth := &cluster.Auth{Node: "node-a", Secret: secretA, Accept: []cluster.Secret{secretB}}
	require.NoError(t, auth.Validate())
	var config struct {
		Cluster struct {
			Secret cluster.Secret   `json:"secret"`
			Accept []cluster.Secret `json:"accept"`
		}
	}
	config.Cluster.Secret, config.Cluster.Accept = secretA, []cluster.Secret{secretB}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", config)
		fmt.Fprintf(&out, verb+"\n", secretA)
		fmt.Fprintf(&out, verb+"\n", auth)
	}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	out.Write(text)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "config", config, "secret", secretA)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "config", config, "secret", secretA)
	for _, s := range []string{string(secretA), fmt.Sprintf("%x", string(secretA)), string(secretB), fmt.Sprintf("%x", string(secretB))} {
		assert.NotContains(t, out.String(), s)
		assert.NotContains(t, out.String(), s[:12])
	}
	assert.Contains(t, out.String(), "REDACTED")
}

func TestASecretIsReadFromJSONAsItStandsThere(t *testing.T) {
	var auth cluster.Auth
	require.NoError(t, json.Unmarshal([]byte(`{"node":"node-a","secret":"`+secretText(secretA)+`","accept":["`+secretText(secretB)+`"]}`), &auth))
	assert.Equal(t, string(secretA), string(auth.Secret))
	assert.Equal(t, string(secretB), string(auth.Accept[0]))
	assert.NoError(t, auth.Validate())
}

func secretText(s cluster.Secret) string { return string(s) }
