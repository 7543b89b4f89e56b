package api

import (
	"reflect"
	"strings"
	"unicode"

	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

// words are the types of text that have certain values only.
var words = map[reflect.Type][]string{
	reflect.TypeFor[users.Role]():    {string(users.Viewer), string(users.Operator), string(users.Admin)},
	reflect.TypeFor[audit.Outcome](): {string(audit.Begun), string(audit.Success), string(audit.Failure)},
	reflect.TypeFor[engine.State](): {
		string(engine.Stopped), string(engine.Starting), string(engine.Started), string(engine.Pausing),
		string(engine.Paused), string(engine.Stopping), string(engine.Undeployed),
	},
}

// schemas makes JSON schemas of the Go types that handlers read and write, so that
// what is described is what is done.
type schemas struct {
	named object // by name, for components/schemas
}

// of returns the schema of the type of v. A schema is its own.
func (s *schemas) of(v any) object {
	if schema, ready := v.(object); ready {
		return schema
	}
	return s.ofType(reflect.TypeOf(v))
}

func (s *schemas) ofType(t reflect.Type) object {
	if list, ok := words[t]; ok {
		return object{"type": "string", "enum": list}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.ofType(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.ofType(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.ofType(t.Elem())}
	case reflect.Struct:
		return s.reference(t)
	case reflect.Interface:
		return object{} // anything
	default:
		panic("api: no schema for " + t.String()) // a mistake in the table of routes, which each test would find
	}
}

// reference describes a struct once, by its name.
func (s *schemas) reference(t reflect.Type) object {
	name := string(unicode.ToUpper(rune(t.Name()[0]))) + strings.TrimSuffix(t.Name()[1:], "Body")
	if _, known := s.named[name]; !known {
		properties, required := object{}, []string{}
		s.named[name] = object{"type": "object", "properties": properties}
		s.fields(t, properties, &required)
		if len(required) > 0 {
			s.named[name] = object{"type": "object", "properties": properties, "required": required}
		}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// fields adds those of a struct, and of those embedded in it. What may be left out
// has omitempty.
func (s *schemas) fields(t reflect.Type, properties object, required *[]string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			s.fields(f.Type, properties, required)
			continue
		case name == "":
			continue
		case options != "omitempty":
			*required = append(*required, name)
		}
		properties[name] = s.ofType(f.Type)
	}
}
