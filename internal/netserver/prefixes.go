package netserver

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// Prefixes are ranges of IP addresses. An IPv4-mapped IPv6 address counts as the
// IPv4 address that it stands for, in the ranges and in what they are asked for,
// and an IPv6 range such as ::/0 holds no IPv4 address.
//
// In text they are separated by commas or white space, in JSON and YAML they are
// an array of strings or one such text. 10.1.0.0/16 and 2001:db8::/32 are ranges,
// an address alone is the range of just that one. A range whose address has bits
// set behind its length, such as 10.1.0.7/16, is refused: it may be meant as
// either.
type Prefixes []netip.Prefix

// ParsePrefixes reads the text form.
func ParsePrefixes(text string) (Prefixes, error) {
	var all Prefixes
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' }) {
		p, err := parsePrefix(field)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is neither an IP address nor a range such as 10.1.0.0/16", text)
	}
	return canonical(p)
}

// canonical returns p in the one form that Contains expects.
func canonical(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, fmt.Errorf("%s is not a range of addresses", p)
	}
	if masked := p.Masked(); masked != p {
		return p, fmt.Errorf("%s has bits set behind its length: write %s, or %s for the one address", p, masked, p.Addr())
	}
	if addr := p.Addr(); addr.Is4In6() { // and so p has at least 96 bits
		return netip.PrefixFrom(addr.Unmap(), p.Bits()-96), nil
	}
	return p, nil
}

// Canonical returns ps in the form that Contains expects, or says which of them
// is no range. What ParsePrefixes returns has that form.
func (ps Prefixes) Canonical() (Prefixes, error) {
	all := make(Prefixes, 0, len(ps))
	for _, p := range ps {
		p, err := canonical(p)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Contains reports whether addr is in one of ps, which must be Canonical.
func (ps Prefixes) Contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range ps {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// String returns the text form.
func (ps Prefixes) String() string { return strings.Join(ps.texts(), ", ") }

func (ps Prefixes) texts() []string {
	all := make([]string, len(ps))
	for i, p := range ps {
		all[i] = p.String()
		if p.IsSingleIP() {
			all[i] = p.Addr().String()
		}
	}
	return all
}

// MarshalJSON returns an array of strings.
func (ps Prefixes) MarshalJSON() ([]byte, error) { return json.Marshal(ps.texts()) }

// UnmarshalJSON takes an array of strings, or one text.
func (ps *Prefixes) UnmarshalJSON(data []byte) error {
	return ps.unmarshal(func(v any) error { return json.Unmarshal(data, v) })
}

// MarshalYAML returns an array of strings.
func (ps Prefixes) MarshalYAML() (any, error) { return ps.texts(), nil }

// UnmarshalYAML takes an array of strings, or one text.
func (ps *Prefixes) UnmarshalYAML(decode func(any) error) error { return ps.unmarshal(decode) }

func (ps *Prefixes) unmarshal(decode func(any) error) error {
	var all []string
	if err := decode(&all); err != nil {
		var text string
		if decode(&text) != nil {
			return fmt.Errorf("ranges of addresses: %w", err)
		}
		all = []string{text}
	}
	parsed, err := ParsePrefixes(strings.Join(all, " "))
	if err != nil {
		return err
	}
	*ps = parsed
	return nil
}
