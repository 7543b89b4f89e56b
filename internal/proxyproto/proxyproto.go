// Package proxyproto reads the header with which a TCP proxy says who its client
// is: the PROXY protocol, versions 1 and 2 (proxy-protocol.txt of HAProxy).
//
//	PROXY TCP4 192.0.2.7 192.0.2.1 49152 2575\r\n        version 1
//	\r\n\r\n\0\r\nQUIT\n !  ... addresses, TLVs          version 2
//
// Whoever can send such a header can claim any address, so it must be read from
// trusted peers alone, and required of them.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

const (
	prefix1   = "PROXY "
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	// maxLine is the length of the longest header of version 1, with its CRLF
	// (section 2.1).
	maxLine = 107
	// maxBlock bounds what may follow the first 16 bytes of version 2. The protocol
	// allows 64 KiB; the largest that proxies send holds a client's certificate.
	maxBlock = 16 << 10
)

// What is wrong with a header. The errors of Read are these, and those of its
// reader; none quotes the bytes.
var (
	ErrNoHeader  = errors.New("no PROXY protocol header")
	ErrMalformed = errors.New("malformed PROXY protocol header")
	ErrTooLong   = errors.New("PROXY protocol header is too long")
	ErrChecksum  = errors.New("PROXY protocol header has a wrong checksum")
)

// A Header is what a proxy says of the connection that it passes on.
type Header struct {
	Version int // 1 or 2
	// Source and Destination are the ends of that connection. They are zero where
	// the proxy speaks for itself, as for a health check (LOCAL), and where it
	// does not say (UNKNOWN, or a client without an IP address).
	Source, Destination netip.AddrPort
}

// Read reads a header from r, and no byte more, whatever pieces r returns it in.
// At the end of r before the first byte the error is io.EOF, later
// io.ErrUnexpectedEOF. Time must be bounded by r.
func Read(r io.Reader) (Header, error) {
	// Twelve bytes are in every header, the shortest of which has fifteen.
	var start [len(signature)]byte
	for n := 0; n < len(start); {
		k, err := r.Read(start[n:])
		n += k
		if head := string(start[:n]); !strings.HasPrefix(signature, head) && !strings.HasPrefix(prefix1, head[:min(n, len(prefix1))]) {
			return Header{}, ErrNoHeader
		}
		if err != nil && n < len(start) {
			if errors.Is(err, io.EOF) && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return Header{}, err
		}
	}
	if string(start[:]) == signature {
		return readBinary(r)
	}
	return readLine(r, start[:])
}

// readLine reads the rest of version 1 (section 2.1) after start.
func readLine(r io.Reader, start []byte) (Header, error) {
	line := append(make([]byte, 0, maxLine), start...)
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == maxLine {
			return Header{}, ErrTooLong
		}
		// One byte at a time: what follows the line belongs to somebody else.
		if _, err := io.ReadFull(r, line[len(line):len(line)+1]); err != nil {
			return Header{}, unexpected(err)
		}
		line = line[:len(line)+1]
	}
	h := Header{Version: 1}
	fields := strings.Split(string(line[len(prefix1):len(line)-2]), " ")
	switch {
	case fields[0] == "UNKNOWN": // and whatever else is in the line
		return h, nil
	case fields[0] != "TCP4" && fields[0] != "TCP6", len(fields) != 5:
		return Header{}, ErrMalformed
	}
	is4 := fields[0] == "TCP4"
	var ok1, ok2 bool
	h.Source, ok1 = parseAddrPort(fields[1], fields[3], is4)
	h.Destination, ok2 = parseAddrPort(fields[2], fields[4], is4)
	if !ok1 || !ok2 {
		return Header{}, ErrMalformed
	}
	return h, nil
}

func parseAddrPort(host, port string, is4 bool) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Is4() != is4 || addr.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, uint16(n)), true
}

// Version 2 (section 2.2).
const (
	local, proxied     = 0x20, 0x21 // version and command
	unspecified        = 0x00       // family and protocol
	tcp4, tcp6, stream = 0x11, 0x21, 0x31
	typeCRC32C         = 0x03 // of a TLV
)

// sizes are the lengths of the addresses of each family.
var sizes = map[byte]int{unspecified: 0, tcp4: 12, tcp6: 36, stream: 216}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readBinary reads the rest of version 2 after its signature.
func readBinary(r io.Reader) (Header, error) {
	head := append(make([]byte, 0, 16), signature...)[:16]
	if _, err := io.ReadFull(r, head[len(signature):]); err != nil {
		return Header{}, unexpected(err)
	}
	command, family, n := head[12], head[13], int(binary.BigEndian.Uint16(head[14:]))
	if command != local && command != proxied {
		return Header{}, ErrMalformed
	}
	if n > maxBlock {
		return Header{}, ErrTooLong
	}
	block := make([]byte, n)
	if _, err := io.ReadFull(r, block); err != nil {
		return Header{}, unexpected(err)
	}
	h := Header{Version: 2}
	if command == local {
		return h, nil // the rest is to be discarded
	}
	size, known := sizes[family]
	if !known || size > n {
		return Header{}, ErrMalformed
	}
	if err := checkTLVs(head, block, size); err != nil {
		return Header{}, err
	}
	ports := block[max(size-4, 0):size]
	switch family {
	case tcp4:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(block[:4])), binary.BigEndian.Uint16(ports))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(block[4:8])), binary.BigEndian.Uint16(ports[2:]))
	case tcp6:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(block[:16])), binary.BigEndian.Uint16(ports))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(block[16:32])), binary.BigEndian.Uint16(ports[2:]))
	}
	return h, nil
}

// checkTLVs walks the TLVs in block after the addresses, and verifies the one
// that it knows: the checksum of the whole header, in which it counts as zero.
func checkTLVs(head, block []byte, from int) error {
	for at := from; at < len(block); {
		if len(block)-at < 3 {
			return ErrMalformed
		}
		kind, n := block[at], int(binary.BigEndian.Uint16(block[at+1:]))
		at += 3
		if n > len(block)-at {
			return ErrMalformed
		}
		if kind == typeCRC32C {
			if n != 4 {
				return ErrMalformed
			}
			value := block[at : at+4]
			want := binary.BigEndian.Uint32(value)
			clear(value)
			if crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, block) != want {
				return ErrChecksum
			}
			binary.BigEndian.PutUint32(value, want)
		}
		at += n
	}
	return nil
}

// unexpected is err of a read after the header's first byte.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
