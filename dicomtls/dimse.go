package dicomtls

import (
	"encoding/binary"
	"slices"
	"strings"
)

// The elements of group 0000 that this package knows (PS3.7 E.1).
const (
	elGroupLength    = 0x0000
	elAffectedClass  = 0x0002
	elRequestedClass = 0x0003
	elField          = 0x0100
	elMessageID      = 0x0110
	elResponseTo     = 0x0120
	elPriority       = 0x0700
	elDataSetType    = 0x0800
	elStatus         = 0x0900
	elErrorComment   = 0x0902
	elAffectedInst   = 0x1000
	elRequestedInst  = 0x1001
	elEventType      = 0x1002
	elActionType     = 0x1008
	elMoveAE         = 0x1030
	elMoveID         = 0x1031
)

// The values of Command Field. That of a response has the highest bit set.
const (
	cmdStore       = 0x0001
	cmdEcho        = 0x0030
	cmdEventReport = 0x0100
	cmdAction      = 0x0130
	cmdCancel      = 0x0FFF
	cmdResponse    = 0x8000
)

const (
	// noDataSet is the Data Set Type of a message without a data set; any other
	// value means that one follows.
	noDataSet = 0x0101

	// maxCommand bounds a command set, which in practice has some 200 bytes.
	maxCommand = 64 << 10
	// maxElements bounds their number: PS3.7 E.1 has 40, retired ones included.
	maxElements = 256
)

// A command is a command set (PS3.7, 6.3): elements of group 0000 in Implicit VR
// Little Endian, ascending, without the group length.
type command []commandElement

type commandElement struct {
	tag   uint16
	value []byte
}

// decodeCommand reads a command set. It lets pass what real peers get wrong: a
// missing or wrong group length, elements out of order, elements that do not
// belong there. The values are parts of b.
func decodeCommand(b []byte) (command, error) {
	c := make(command, 0, min(16, len(b)/8))
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, invalid("%d bytes where an element of a command should begin", len(b))
		}
		group, tag, n := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		if b = b[8:]; uint64(n) > uint64(len(b)) {
			return nil, invalid("command element (%04X,%04X) of %d bytes, of which %d are there", group, tag, n, len(b))
		}
		if group == 0 && tag != elGroupLength {
			if len(c) == maxElements {
				return nil, invalid("command with more than %d elements", maxElements)
			}
			c = append(c, commandElement{tag, b[:n]})
		}
		b = b[n:]
	}
	slices.SortStableFunc(c, func(a, b commandElement) int { return int(a.tag) - int(b.tag) })
	if _, there := c.uint16(elField); !there {
		return nil, invalid("command without a command field")
	}
	return c, nil
}

// appendTo appends the command set with its group length.
func (c command) appendTo(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0)
	for _, e := range c {
		dst = binary.LittleEndian.AppendUint16(append(dst, 0, 0), e.tag)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(e.value))) //nolint:gosec // of ours, or within maxCommand
		dst = append(dst, e.value...)
	}
	binary.LittleEndian.PutUint32(dst[start+8:], uint32(len(dst)-start-12)) //nolint:gosec // as above
	return dst
}

// value returns the value of an element, nil if it is not there.
func (c command) value(tag uint16) []byte {
	for _, e := range c {
		if e.tag == tag {
			return e.value
		}
	}
	return nil
}

// uint16 returns the value of an element of VR US.
func (c command) uint16(tag uint16) (v uint16, there bool) {
	if b := c.value(tag); len(b) >= 2 {
		return binary.LittleEndian.Uint16(b), true
	}
	return 0, false
}

// number is uint16 for elements whose absence means the same as 0.
func (c command) number(tag uint16) uint16 {
	v, _ := c.uint16(tag)
	return v
}

// uid returns the value of an element of VR UI.
func (c command) uid(tag uint16) string { return cleanUID(c.value(tag)) }

func (c command) field() uint16 { return c.number(elField) }

// class returns the SOP class that the command is about.
func (c command) class() string {
	if c.value(elAffectedClass) != nil {
		return c.uid(elAffectedClass)
	}
	return c.uid(elRequestedClass)
}

// instance returns the SOP instance that the command is about.
func (c command) instance() string {
	if c.value(elAffectedInst) != nil {
		return c.uid(elAffectedInst)
	}
	return c.uid(elRequestedInst)
}

// hasDataSet reports whether a data set follows. A message that does not say
// so has none.
func (c command) hasDataSet() bool {
	v, there := c.uint16(elDataSetType)
	return there && v != noDataSet
}

// with appends an element of VR US. Elements must be added in ascending order.
func (c command) with(tag, v uint16) command {
	return append(c, commandElement{tag, binary.LittleEndian.AppendUint16(nil, v)})
}

// withUID appends an element of VR UI, unless it is empty.
func (c command) withUID(tag uint16, uid string) command {
	if uid == "" {
		return c
	}
	return append(c, commandElement{tag, evenText(uid, 0)})
}

// withText appends an element of VR AE or LO, unless it is empty.
func (c command) withText(tag uint16, text string) command {
	if text == "" {
		return c
	}
	return append(c, commandElement{tag, evenText(text, ' ')})
}

func evenText(s string, pad byte) []byte {
	b := make([]byte, 0, len(s)+1)
	if b = append(b, s...); len(b)%2 != 0 {
		b = append(b, pad)
	}
	return b
}

// comment makes of text what fits into Error Comment (0000,0902), VR LO: 64
// characters of ASCII without backslash and control characters.
func comment(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '\\' {
			return '?'
		}
		return r
	}, text)
	return strings.TrimSpace(text[:min(len(text), 64)])
}
