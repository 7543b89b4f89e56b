package config

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Variables looks variables of the environment up and remembers which were asked for,
// so that one that nobody asks for can be told. It is safe for concurrent use.
type Variables struct {
	from func(string) (string, bool) // static after construction

	mu    sync.Mutex
	asked []string // guarded by mu; each once
}

// NewVariables returns variables that are looked up with from (os.LookupEnv).
func NewVariables(from func(string) (string, bool)) *Variables { return &Variables{from: from} }

// Lookup is os.LookupEnv.
func (v *Variables) Lookup(name string) (string, bool) {
	v.mu.Lock()
	if !slices.Contains(v.asked, name) {
		v.asked = append(v.asked, name)
	}
	v.mu.Unlock()
	return v.from(name)
}

var (
	// ours are the names with which the engine's variables begin.
	ours = regexp.MustCompile(`^(MIRTH|TLS|HTTP|HTTPS|CORS)_`)
	// others are some that begin so too: proxies', and those that Kubernetes gives
	// each container for a Service, say one that is called mirth.
	others = regexp.MustCompile(`^HTTPS?_PROXY$|_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?$|^MIRTH(_[A-Z0-9]+)*_PORT$`)
)

// Unknown returns the names in environ (os.Environ) that look as if they were the
// engine's, and that nobody has asked for: by their beginning, or because one slip
// makes another of them. What may have been meant stands with it.
func (v *Variables) Unknown(environ []string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var unknown []string
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if value == "" || slices.Contains(v.asked, name) {
			continue
		}
		meant := slices.IndexFunc(v.asked, func(known string) bool { return strings.Contains(known, "_") && oneSlip(name, known) })
		switch {
		case meant >= 0:
			unknown = append(unknown, name+" (did you mean "+v.asked[meant]+"?)")
		case ours.MatchString(name) && !others.MatchString(name):
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}
