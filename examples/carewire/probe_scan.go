package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// probe fills in a report. strict is the configuration of a client of this
// library; its ServerName is what the server's certificate must name.
func (p *prober) probe(ctx context.Context, s *streams, strict *tls.Config) *probeReport {
	now := time.Now()
	host := strict.ServerName
	r := &probeReport{Address: p.address, Name: host}
	asClient := p.at(ctx, strict, true)
	shown := asClient
	loose := permissive(strict)
	if asClient.reached && !asClient.complete {
		shown = p.at(ctx, loose, true)
	}
	r.describe(asClient, shown, now)
	r.Problems = problems(asClient, shown, strict.RootCAs, host, now)
	r.Verified = shown.saw && len(r.Problems) == 0
	r.OK = asClient.err == nil
	// Who did not answer, or not in TLS, is not asked again.
	if shown.saw || shown.refused() {
		bar := s.progress(len(scanned)+len(knownSuites()), "asking for versions and suites")
		r.Versions = p.versions(ctx, loose, bar)
		if slices.Contains(r.Versions, versionAnswer{Version: tls.VersionName(tls.VersionTLS12), Answer: answerYes}) {
			r.Suites, r.SuitesIncomplete = p.suites(ctx, loose, bar)
		}
		bar.clear()
	}
	return r
}

// answer is what a server said to a version.
type answer string

const (
	answerYes     answer = "yes"
	answerNo      answer = "no"
	answerUnknown answer = "unknown" // the network or this client failed, not the server
)

type versionAnswer struct {
	Version string `json:"version"`
	Answer  answer `json:"answer"`
	Detail  string `json:"detail,omitempty"` // why the answer is unknown
}

// scanned are the versions asked for. SSL 2 and 3 are not among them, since
// crypto/tls cannot speak them.
var scanned = []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}

// versions offers each version alone.
func (p *prober) versions(ctx context.Context, loose *tls.Config, bar *progress) []versionAnswer {
	var answers []versionAnswer
	for _, id := range scanned {
		config := loose.Clone()
		config.MinVersion, config.MaxVersion = id, id
		l := p.at(ctx, config, false)
		a := versionAnswer{Version: tls.VersionName(id)}
		switch {
		case l.saw:
			a.Answer = answerYes
		case l.refused():
			a.Answer = answerNo
		default:
			a.Answer, a.Detail = answerUnknown, printable(fmt.Sprint(l.err))
		}
		answers = append(answers, a)
		bar.step()
	}
	return answers
}

type suiteAnswer struct {
	Name     string `json:"name"`
	Weakness string `json:"weakness,omitempty"`
}

// suites finds the suites that the server accepts in TLS 1.2: it offers all, and
// then all but those the server has chosen already, until the server refuses.
// incomplete is why the end could not be reached, if it could not.
func (p *prober) suites(ctx context.Context, loose *tls.Config, bar *progress) (found []suiteAnswer, incomplete string) {
	config := loose.Clone()
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for left := knownSuites(); len(left) > 0; {
		config = config.Clone()
		config.CipherSuites = left
		l := p.at(ctx, config, false)
		bar.step()
		if !l.saw {
			if l.refused() {
				return found, ""
			}
			return found, printable(fmt.Sprint(l.err))
		}
		name := tls.CipherSuiteName(l.state.CipherSuite)
		found = append(found, suiteAnswer{Name: name, Weakness: weakness(name)})
		left = slices.DeleteFunc(slices.Clone(left), func(id uint16) bool { return id == l.state.CipherSuite })
	}
	return found, ""
}

// weakness says what is wrong with a suite of TLS 1.2 (RFC 9325, section 4.1 and
// 4.2); empty for one with ephemeral keys and authenticated encryption.
func weakness(suite string) string {
	var faults []string
	if strings.HasPrefix(suite, "TLS_RSA_") {
		faults = append(faults, "no forward secrecy")
	}
	switch {
	case strings.Contains(suite, "RC4"):
		faults = append(faults, "RC4 is broken")
	case strings.Contains(suite, "3DES"):
		faults = append(faults, "64-bit blocks")
	case strings.Contains(suite, "CBC"):
		faults = append(faults, "CBC")
	}
	return strings.Join(faults, ", ")
}

// problems are the reasons why the server's certificates do not hold, all of
// them, where a handshake stops at the first.
func problems(asClient, shown *look, roots *x509.CertPool, host string, now time.Time) []string {
	chain := shown.state.PeerCertificates
	if asClient.complete || len(chain) == 0 {
		return nil
	}
	var found []string
	for i, c := range chain {
		switch {
		case now.After(c.NotAfter):
			found = append(found, fmt.Sprintf("certificate %d expired on %s", i+1, c.NotAfter.UTC().Format(time.RFC3339)))
		case now.Before(c.NotBefore):
			found = append(found, fmt.Sprintf("certificate %d is not valid before %s", i+1, c.NotBefore.UTC().Format(time.RFC3339)))
		}
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if err != nil && (!ok || invalid.Reason != x509.Expired || len(found) == 0) {
		found = append(found, printable(err.Error()))
	}
	if err := chain[0].VerifyHostname(host); err != nil {
		found = append(found, printable(err.Error()))
	}
	// What else the library checks is in its own words.
	if verification, ok := errors.AsType[*tls.CertificateVerificationError](asClient.err); ok && len(found) == 0 {
		found = append(found, printable(verification.Error()))
	}
	return found
}
