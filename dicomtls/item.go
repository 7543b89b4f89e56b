package dicomtls

import (
	"encoding/binary"
	"errors"
	"math"
)

// The types of items and sub-items (PS3.8, 9.3 and Annex D; PS3.7, D.3.3).
const (
	itemApplicationContext = 0x10
	itemContextRQ          = 0x20
	itemContextAC          = 0x21
	itemAbstractSyntax     = 0x30
	itemTransferSyntax     = 0x40
	itemUserInfo           = 0x50
	itemMaxLength          = 0x51
	itemClassUID           = 0x52
	itemAsyncWindow        = 0x53
	itemRole               = 0x54
	itemVersionName        = 0x55
	itemExtended           = 0x56
	itemCommonExtended     = 0x57
	itemIdentityRQ         = 0x58
	itemIdentityAC         = 0x59

	// maxContexts is how many odd numbers fit a byte: PS3.8 Table 9-13.
	maxContexts = 128
)

var errItemTooLong = errors.New("dicomtls: an item of the association request would be longer than 65535 bytes")

// eachItem calls f for each of the items in b: type, reserved, length in two bytes.
func eachItem(b []byte, f func(kind byte, item []byte) error) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return invalid("%d bytes where an item should begin", len(b))
		}
		kind, n := b[0], int(binary.BigEndian.Uint16(b[2:]))
		if b = b[4:]; n > len(b) {
			return invalid("item %#02x of %d bytes, of which %d are there", kind, n, len(b))
		}
		if err := f(kind, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// appendItem appends an item whose contents body appends. If they are too long
// it sets *err.
func appendItem(dst []byte, kind byte, err *error, body func([]byte) []byte) []byte {
	start := len(dst) + 4
	dst = body(append(dst, kind, 0, 0, 0))
	n := len(dst) - start
	if n > math.MaxUint16 {
		*err = errItemTooLong
		return dst
	}
	binary.BigEndian.PutUint16(dst[start-2:], uint16(n))
	return dst
}

// A contextItem proposes a presentation context, or answers the proposal.
type contextItem struct {
	id        uint8
	result    uint8    // in an AC
	abstract  string   // in an RQ
	transfers []string // in an AC at most one
}

func (c *contextItem) appendTo(dst []byte, accept bool, err *error) []byte {
	kind := byte(itemContextRQ)
	if accept {
		kind = itemContextAC
	}
	return appendItem(dst, kind, err, func(dst []byte) []byte {
		dst = append(dst, c.id, 0, c.result, 0)
		if !accept {
			dst = appendItem(dst, itemAbstractSyntax, err, func(dst []byte) []byte { return append(dst, c.abstract...) })
		}
		for _, uid := range c.transfers {
			dst = appendItem(dst, itemTransferSyntax, err, func(dst []byte) []byte { return append(dst, uid...) })
		}
		return dst
	})
}

// decodeContext reads a presentation context. Transfer syntaxes that are no UIDs
// are left out: nobody can accept them.
func decodeContext(item []byte, accept bool) (contextItem, error) {
	if len(item) < 4 {
		return contextItem{}, invalid("presentation context of %d bytes", len(item))
	}
	c := contextItem{id: item[0]}
	if accept { // in an RQ this byte is reserved, and DCMTK sends FF
		c.result = item[2]
	}
	abstracts := 0
	err := eachItem(item[4:], func(kind byte, sub []byte) error {
		switch kind {
		case itemAbstractSyntax:
			if accept {
				return nil
			}
			if abstracts++; abstracts > 1 {
				return invalid("presentation context with two abstract syntaxes")
			}
			c.abstract = cleanUID(sub)
		case itemTransferSyntax:
			uid := cleanUID(sub)
			switch {
			case accept && len(c.transfers) > 0:
				return invalid("presentation context accepted with two transfer syntaxes")
			case validUID(uid):
				c.transfers = append(c.transfers, uid)
			}
		}
		return nil
	})
	return c, err
}

// userInfo is the user information item. Unknown sub-items are ignored, as PS3.8
// D.2 demands; of a sub-item that comes twice the last one counts.
type userInfo struct {
	maxLength    uint32 // 0: no limit
	hasMaxLength bool
	classUID     string
	versionName  string
	window       *asyncWindow
	roles        []roleItem
	extended     []extendedItem
	common       []commonItem
	identity     *UserIdentity
	response     []byte // to identity; nil: none
}

// An asyncWindow says how many operations may be under way (PS3.7 D.3.3.3); 0 is
// any number.
type asyncWindow struct{ invoked, performed uint16 }

// A roleItem says which roles the requestor has for a SOP class (PS3.7 D.3.3.4).
type roleItem struct {
	class    string
	scu, scp bool
}

// An extendedItem is SOP class extended negotiation (PS3.7 D.3.3.5).
type extendedItem struct {
	class string
	info  []byte
}

// A commonItem is SOP class common extended negotiation (PS3.7 D.3.3.6).
type commonItem struct {
	class, service string
	related        []string
}

func (u *userInfo) appendTo(dst []byte, err *error) []byte {
	return appendItem(dst, itemUserInfo, err, func(dst []byte) []byte {
		item := func(kind byte, body func([]byte) []byte) { dst = appendItem(dst, kind, err, body) }
		if u.hasMaxLength {
			item(itemMaxLength, func(b []byte) []byte { return binary.BigEndian.AppendUint32(b, u.maxLength) })
		}
		if u.classUID != "" {
			item(itemClassUID, func(b []byte) []byte { return append(b, u.classUID...) })
		}
		if u.window != nil {
			item(itemAsyncWindow, func(b []byte) []byte {
				return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, u.window.invoked), u.window.performed)
			})
		}
		for _, r := range u.roles {
			item(itemRole, func(b []byte) []byte { return append(appendSized(b, r.class, err), asByte(r.scu), asByte(r.scp)) })
		}
		if u.versionName != "" {
			item(itemVersionName, func(b []byte) []byte { return append(b, u.versionName...) })
		}
		for _, e := range u.extended {
			item(itemExtended, func(b []byte) []byte { return append(appendSized(b, e.class, err), e.info...) })
		}
		for _, c := range u.common {
			item(itemCommonExtended, func(b []byte) []byte { return c.appendTo(b, err) })
		}
		if id := u.identity; id != nil {
			item(itemIdentityRQ, func(b []byte) []byte {
				b = append(b, byte(id.Type), asByte(id.ResponseRequested))
				return appendSized(appendSized(b, id.Primary, err), id.Secondary, err)
			})
		}
		if u.response != nil {
			item(itemIdentityAC, func(b []byte) []byte { return appendSized(b, u.response, err) })
		}
		return dst
	})
}

func (c *commonItem) appendTo(b []byte, err *error) []byte {
	b = appendSized(appendSized(b, c.class, err), c.service, err)
	var related []byte
	for _, uid := range c.related {
		related = appendSized(related, uid, err)
	}
	return appendSized(b, related, err)
}

// decode reads the sub-items. In none of them is a length taken for granted.
func (u *userInfo) decode(item []byte) error {
	return eachItem(item, func(kind byte, sub []byte) error {
		f := fields{rest: sub}
		switch kind {
		case itemMaxLength:
			u.maxLength, u.hasMaxLength = f.uint32(), true
		case itemClassUID:
			u.classUID = cleanUID(f.all())
		case itemAsyncWindow:
			u.window = &asyncWindow{invoked: f.uint16(), performed: f.uint16()}
		case itemRole:
			u.roles = append(u.roles, roleItem{class: cleanUID(f.sized()), scu: f.uint8() != 0, scp: f.uint8() != 0})
		case itemVersionName:
			u.versionName = cleanUID(f.all())
		case itemExtended:
			u.extended = append(u.extended, extendedItem{class: cleanUID(f.sized()), info: append([]byte(nil), f.all()...)})
		case itemCommonExtended:
			c := commonItem{class: cleanUID(f.sized()), service: cleanUID(f.sized())}
			related := fields{rest: f.sized()}
			for len(related.rest) > 0 && !related.short {
				c.related = append(c.related, cleanUID(related.sized()))
			}
			f.short = f.short || related.short
			u.common = append(u.common, c)
		case itemIdentityRQ:
			id := &UserIdentity{Type: IdentityType(f.uint8()), ResponseRequested: f.uint8() != 0}
			id.Primary = append([]byte{}, f.sized()...)
			if second := f.sized(); len(second) > 0 {
				id.Secondary = append([]byte{}, second...)
			}
			u.identity = id
		case itemIdentityAC:
			u.response = append([]byte{}, f.sized()...)
		}
		if f.short {
			return invalid("user information item %#02x of %d bytes is too short", kind, len(sub))
		}
		return nil
	})
}

// fields takes fields off the beginning of a sub-item. Once one is not there
// whole, short is set and all that follow are zero.
type fields struct {
	rest  []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if f.short || n > len(f.rest) {
		f.short = true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) all() []byte { return f.take(len(f.rest)) }

func (f *fields) uint8() uint8 {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) uint32() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// sized takes a field that is preceded by its length in two bytes.
func (f *fields) sized() []byte { return f.take(int(f.uint16())) }

// appendSized is the opposite of sized.
func appendSized[T string | []byte](dst []byte, v T, err *error) []byte {
	if len(v) > math.MaxUint16 {
		*err = errItemTooLong
		return dst
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(v))), v...) //nolint:gosec // checked
}

func asByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
