package main

import (
	"strconv"
	"strings"
	"unicode/utf16"
)

// parseProperties reads a Java properties file by the rules of
// java.util.Properties.load: ISO 8859-1, "=", ":" or white space after the key,
// lines that go on after a backslash, and escapes. The last of equal keys counts.
func parseProperties(data []byte) map[string]string {
	runes := make([]rune, len(data)) // each byte of ISO 8859-1 is the code point of that number
	for i, b := range data {
		runes[i] = rune(b)
	}
	out := make(map[string]string)
	for _, line := range logicalLines(string(runes)) {
		key, value := splitProperty(line)
		out[unescape(key)] = unescape(value)
	}
	return out
}

const javaBlank = " \t\f"

// logicalLines returns the lines without comments and blank ones, those that go
// on put together.
func logicalLines(text string) []string {
	var lines []string
	goesOn := false
	for line := range strings.Lines(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")) {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\n"), javaBlank)
		if !goesOn && (line == "" || line[0] == '#' || line[0] == '!') {
			continue
		}
		more := (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
		if more {
			line = line[:len(line)-1]
		}
		if goesOn {
			lines[len(lines)-1] += line
		} else {
			lines = append(lines, line)
		}
		goesOn = more
	}
	return lines
}

// splitProperty cuts a line at the first separator that is not escaped.
func splitProperty(line string) (key, value string) {
	end := 0
	for end < len(line) && !strings.ContainsRune("=:"+javaBlank, rune(line[end])) {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	value = strings.TrimLeft(line[end:], javaBlank)
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], javaBlank)
	}
	return line[:end], value
}

// unescape undoes backslashes. \u stands before a unit of UTF-16; a backslash
// before any other character is left out.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var units []uint16
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			end := i + 1
			for end < len(s) && s[end] != '\\' {
				end++
			}
			units = append(units, utf16.Encode([]rune(s[i:end]))...)
			i = end - 1
			continue
		}
		i++
		switch s[i] {
		case 't':
			units = append(units, '\t')
		case 'n':
			units = append(units, '\n')
		case 'r':
			units = append(units, '\r')
		case 'f':
			units = append(units, '\f')
		case 'u':
			if i+5 <= len(s) {
				if n, err := strconv.ParseUint(s[i+1:i+5], 16, 16); err == nil {
					units = append(units, uint16(n))
					i += 4
					continue
				}
			}
			units = append(units, 'u')
		default:
			i-- // the character itself, which may be of several bytes
			end := i + 2
			for end < len(s) && s[end]&0xC0 == 0x80 {
				end++
			}
			units = append(units, utf16.Encode([]rune(s[i+1:end]))...)
			i = end - 1
		}
	}
	return string(utf16.Decode(units))
}
