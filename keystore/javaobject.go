package keystore

import (
	"bytes"
	"fmt"
	"slices"
)

// JCEKS keeps a secret key as a Java object without its length before it, so
// that the other entries can be read only by walking its grammar (Java Object
// Serialization Specification, chapter 6). Nothing is instantiated: what comes
// out are the values of fields, by name.

// The codes of the grammar.
const (
	tcNull         = 0x70
	tcReference    = 0x71
	tcClassDesc    = 0x72
	tcObject       = 0x73
	tcString       = 0x74
	tcArray        = 0x75
	tcBlockData    = 0x77
	tcEndBlockData = 0x78
	tcLongString   = 0x7c
	tcProxyClass   = 0x7d
	tcEnum         = 0x7e

	flagWriteMethod  = 1
	flagSerializable = 2

	baseHandle = 0x7e0000 // of the first thing that may be referred to
)

// What a sealed key may nest: its super classes, and objects in fields.
const (
	maxSuperClasses = 16
	maxJavaDepth    = 8
)

var javaMagic = []byte{0xac, 0xed, 0, 5}

func isJavaStream(b []byte) bool { return bytes.HasPrefix(b, javaMagic) }

// javaObject is what an object or an enumeration constant holds.
type javaObject struct {
	class  string
	fields map[string]any // string, []byte, *javaObject; others are left out
}

type javaClass struct {
	name   string
	flags  byte
	fields []javaField
	super  *javaClass
}

type javaField struct {
	kind byte // as in class files: B C D F I J S Z L [
	name string
}

// javaReader walks one stream.
type javaReader struct {
	*cursor
	account *account
	handles []any // *javaClass, *javaObject, string, []byte
}

const inObject = "a serialized Java object"

// readJavaObject reads one stream with one object from c.
func readJavaObject(c *cursor, a *account) (*javaObject, error) {
	magic, err := c.bytes(int64(len(javaMagic)), inObject)
	if err != nil {
		return nil, err
	}
	if !isJavaStream(magic) {
		return nil, malformed("%s begins with %x", inObject, magic)
	}
	r := &javaReader{cursor: c, account: a}
	v, err := r.content(0)
	if err != nil {
		return nil, err
	}
	o, ok := v.(*javaObject)
	if !ok {
		return nil, malformed("%s is something else", inObject)
	}
	return o, nil
}

// remember gives v the next handle.
func (r *javaReader) remember(v any) error {
	r.handles = append(r.handles, v)
	return r.account.item()
}

// content reads an object, a string, an array, a constant, a reference or null.
func (r *javaReader) content(depth int) (any, error) {
	if depth > maxJavaDepth {
		return nil, malformed("%s nests deeper than %d", inObject, maxJavaDepth)
	}
	code, err := r.u1()
	if err != nil {
		return nil, err
	}
	switch code {
	case tcNull:
		return nil, nil
	case tcReference:
		return r.reference()
	case tcString:
		s, err := r.text(inObject)
		if err != nil {
			return nil, err
		}
		return s, r.remember(s)
	case tcArray:
		return r.array(depth)
	case tcObject:
		return r.object(depth)
	case tcEnum:
		class, err := r.classDesc(depth)
		if err != nil {
			return nil, err
		}
		o := &javaObject{class: class.name}
		if err := r.remember(o); err != nil {
			return nil, err
		}
		_, err = r.content(depth + 1) // the constant's name
		return o, err
	default: // tcLongString too: no name has 64 KiB
		return nil, malformed("%s has code %#x", inObject, code)
	}
}

func (r *javaReader) reference() (any, error) {
	handle, err := r.u4(inObject)
	if err != nil {
		return nil, err
	}
	i := int64(handle) - baseHandle
	if i < 0 || i >= int64(len(r.handles)) {
		return nil, malformed("%s refers to what it does not have", inObject)
	}
	return r.handles[i], nil
}

// classDesc reads the description of a class, and of those above it.
func (r *javaReader) classDesc(depth int) (*javaClass, error) {
	var first, last *javaClass
	for range maxSuperClasses {
		class, more, err := r.oneClass(depth)
		if err != nil {
			return nil, err
		}
		switch {
		case first == nil && class == nil:
			return nil, malformed("%s has no class", inObject)
		case first == nil:
			first = class
		default:
			last.super = class
		}
		if !more {
			return first, nil
		}
		last = class
	}
	return nil, malformed("%s has more than %d super classes", inObject, maxSuperClasses)
}

// oneClass reads one class; more tells whether its super class follows.
func (r *javaReader) oneClass(depth int) (class *javaClass, more bool, err error) {
	code, err := r.u1()
	if err != nil {
		return nil, false, err
	}
	switch code {
	case tcNull:
		return nil, false, nil
	case tcReference:
		v, err := r.reference()
		if err != nil {
			return nil, false, err
		}
		class, ok := v.(*javaClass)
		if !ok {
			return nil, false, malformed("%s refers to a class that is none", inObject)
		}
		return class, false, nil
	case tcClassDesc:
	case tcProxyClass:
		return nil, false, malformed("%s has a proxy class", inObject)
	default:
		return nil, false, malformed("%s has code %#x for a class", inObject, code)
	}
	class = new(javaClass)
	if class.name, err = r.text(inObject); err != nil {
		return nil, false, err
	}
	if _, err = r.u8(inObject); err != nil { // serialVersionUID
		return nil, false, err
	}
	if err = r.remember(class); err != nil {
		return nil, false, err
	}
	if class.flags, err = r.u1(); err != nil {
		return nil, false, err
	}
	count, err := r.u2(inObject)
	if err != nil {
		return nil, false, err
	}
	for range count {
		if err := r.field(class, depth); err != nil {
			return nil, false, err
		}
	}
	return class, true, r.annotation(depth)
}

func (r *javaReader) field(class *javaClass, depth int) error {
	if err := r.account.item(); err != nil {
		return err
	}
	kind, err := r.u1()
	if err != nil {
		return err
	}
	name, err := r.text(inObject)
	if err != nil {
		return err
	}
	if kind == 'L' || kind == '[' {
		v, err := r.content(depth + 1)
		if err != nil {
			return err
		}
		if _, ok := v.(string); !ok {
			return malformed("%s has a field without a type", inObject)
		}
	} else if fieldWidths[kind] == 0 {
		return malformed("%s has a field of type %#x", inObject, kind)
	}
	class.fields = append(class.fields, javaField{kind, name})
	return nil
}

// fieldWidths are the sizes of Java's primitive types in bytes.
var fieldWidths = map[byte]int64{'B': 1, 'Z': 1, 'C': 2, 'S': 2, 'F': 4, 'I': 4, 'D': 8, 'J': 8}

// annotation skips what writeObject has added.
func (r *javaReader) annotation(depth int) error {
	for {
		if r.left() == 0 {
			return truncated(inObject)
		}
		switch r.data[r.off] {
		case tcEndBlockData:
			r.off++
			return nil
		case tcBlockData:
			r.off++
			n, err := r.u1()
			if err != nil {
				return err
			}
			if _, err := r.bytes(int64(n), inObject); err != nil {
				return err
			}
		default:
			if _, err := r.content(depth + 1); err != nil {
				return err
			}
		}
	}
}

func (r *javaReader) array(depth int) (any, error) {
	class, err := r.classDesc(depth)
	if err != nil {
		return nil, err
	}
	at := len(r.handles)
	if err := r.remember(nil); err != nil {
		return nil, err
	}
	n, err := r.u4(inObject)
	if err != nil {
		return nil, err
	}
	if class.name != "[B" {
		return nil, malformed("%s has an array of %q", inObject, class.name)
	}
	b, err := r.bytes(int64(n), inObject)
	if err != nil {
		return nil, err
	}
	r.handles[at] = b
	return b, nil
}

func (r *javaReader) object(depth int) (any, error) {
	class, err := r.classDesc(depth)
	if err != nil {
		return nil, err
	}
	o := &javaObject{class: class.name, fields: make(map[string]any)}
	if err := r.remember(o); err != nil {
		return nil, err
	}
	var classes []*javaClass // the topmost comes last
	for c := class; c != nil; c = c.super {
		if classes = append(classes, c); len(classes) > maxSuperClasses {
			return nil, malformed("%s has more than %d super classes", inObject, maxSuperClasses)
		}
	}
	for _, c := range slices.Backward(classes) {
		if c.flags&^flagWriteMethod != flagSerializable {
			return nil, malformed("%s of class %q says how it is serialized in a way that is not known", inObject, c.name)
		}
		for _, field := range c.fields {
			if err := r.value(o, field, depth); err != nil {
				return nil, err
			}
		}
		if c.flags&flagWriteMethod != 0 {
			if err := r.annotation(depth); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

func (r *javaReader) value(o *javaObject, field javaField, depth int) error {
	if width := fieldWidths[field.kind]; width > 0 {
		_, err := r.bytes(width, inObject)
		return err
	}
	v, err := r.content(depth + 1)
	if err != nil {
		return err
	}
	if v != nil {
		o.fields[field.name] = v
	}
	return nil
}

// secretKey reads a JCEKS entry for a secret key: a javax.crypto.SealedObject
// around another serialized object.
func (f *javaFile) secretKey(e *Entry) error {
	sealed, err := readJavaObject(&f.cursor, f.account)
	if err != nil {
		return err
	}
	const class = "com.sun.crypto.provider.SealedObjectForKeyProtector"
	if sealed.class != class && sealed.class != "javax.crypto.SealedObject" {
		e.Err = &UnsupportedAlgorithmError{Name: fmt.Sprintf("the class %q", sealed.class), Where: fmt.Sprintf("the secret key %q", e.Alias)}
		return nil
	}
	algorithm, _ := sealed.fields["sealAlg"].(string)
	encoded, _ := sealed.fields["encodedParams"].([]byte)
	content, _ := sealed.fields["encryptedContent"].([]byte)
	e.SealAlgorithm = algorithm
	where := fmt.Sprintf("the secret key %q", e.Alias)
	if algorithm != "PBEWithMD5AndTripleDES" {
		e.Err = &UnsupportedAlgorithmError{Name: fmt.Sprintf("%q", algorithm), Where: where}
		return nil
	}
	params, err := parseJCEKSParameters(encoded, content)
	if err != nil {
		return fromPBE(err, where)
	}
	e.unlock = func() ([]byte, error) {
		plain, err := f.openSealed(params, content, e.Alias, isJavaStream)
		if err != nil {
			return nil, err
		}
		key, err := readJavaObject(&cursor{data: plain}, f.account)
		if err != nil {
			return nil, err
		}
		e.Algorithm, _ = key.fields["algorithm"].(string)
		switch key.class {
		case "javax.crypto.spec.SecretKeySpec":
			raw, _ := key.fields["key"].([]byte)
			return raw, nil
		case "java.security.KeyRep": // how the JDK writes keys of DES, DESede and passwords
			raw, _ := key.fields["encoded"].([]byte)
			return raw, nil
		default:
			return nil, &UnsupportedAlgorithmError{Name: fmt.Sprintf("the class %q", key.class), Where: where}
		}
	}
	return nil
}
