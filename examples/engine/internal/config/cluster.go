package config

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/carewire/carewire/cluster"
)

// ReadCluster reads, with lookup (os.LookupEnv), what lets other nodes in, for the
// node of that name:
//
//	MIRTH_CLUSTER_SECRET           sent and accepted
//	MIRTH_CLUSTER_SECRET_PREVIOUS  accepted too, during a change of the secret
//	MIRTH_CLUSTER_SECRET_FILE      in place of both: see cluster.Auth.SecretFile
//	MIRTH_CLUSTER_SIGNED_ONLY      true: the plain header X-Cluster-Secret is refused
//
// It returns nil without a secret: what is for other nodes is then not there at all.
// observe is told of each request, and must not block.
// A secret that is weak is an error, and so is MIRTH_CLUSTER_ENABLED without one.
func ReadCluster(lookup func(string) (string, bool), node string, log *slog.Logger, observe func(cluster.Event)) (*cluster.Auth, error) {
	get := func(name string) string {
		value, _ := lookup(name)
		return value
	}
	signedOnly, err := yes(get("MIRTH_CLUSTER_SIGNED_ONLY"))
	if err != nil {
		return nil, fmt.Errorf("MIRTH_CLUSTER_SIGNED_ONLY: %w", err)
	}
	enabled, err := yes(get("MIRTH_CLUSTER_ENABLED"))
	if err != nil {
		return nil, fmt.Errorf("MIRTH_CLUSTER_ENABLED: %w", err)
	}
	auth := &cluster.Auth{
		Node: node, Secret: cluster.Secret(get("MIRTH_CLUSTER_SECRET")), SecretFile: get("MIRTH_CLUSTER_SECRET_FILE"),
		SignedOnly: signedOnly, Logger: log, Observe: observe,
	}
	previous := get("MIRTH_CLUSTER_SECRET_PREVIOUS")
	if previous != "" {
		auth.Accept = []cluster.Secret{cluster.Secret(previous)}
	}
	if auth.Secret == "" && auth.SecretFile == "" {
		if enabled || previous != "" {
			return nil, errors.New("MIRTH_CLUSTER_SECRET: is missing: set it, or unset MIRTH_CLUSTER_ENABLED and MIRTH_CLUSTER_SECRET_PREVIOUS")
		}
		return nil, nil //nolint:nilnil // there is no cluster
	}
	if err := auth.Validate(); err != nil {
		return nil, fmt.Errorf("MIRTH_CLUSTER_SECRET and MIRTH_CLUSTER_SECRET_FILE: %w", err)
	}
	return auth, nil
}

// yes reads a switch in the words that Mirth has; empty is no.
func yes(value string) (bool, error) {
	switch value = strings.ToLower(value); {
	case slices.Contains([]string{"true", "1", "yes"}, value):
		return true, nil
	case slices.Contains([]string{"", "false", "0", "no"}, value):
		return false, nil
	}
	return false, errors.New("write true or false")
}
