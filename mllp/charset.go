package mllp
func lookupCharset(name []byte) (string, bool) { return "", true }
func (h *Header) repetition() byte { return '~' }
