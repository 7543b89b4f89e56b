package config

import (
	"bytes"

	"github.com/carewire/carewire/mllp"
)

// The bytes around a message in MLLP, of either release.
var (
	mllpStart = mllp.FrameBytes{0x0B}
	mllpEnd   = mllp.FrameBytes{0x1C, 0x0D}
)

// framing checks how messages are told apart: each key against the mode, and then
// all together, in the words of the library.
func (d *decoder) framing(key string, f *Framing) {
	d.oneOf(join(key, "transmissionMode"), f.TransmissionMode, "MLLP", "MLLPv2", "FRAME", "RAW")
	if !d.clean(join(key, "transmissionMode")) {
		return // nobody can say which other keys it may have
	}
	mode := mllp.Mode(f.TransmissionMode)
	if mode == "" {
		mode = mllp.ModeMLLP
	}
	d.frameBytes(key, f, mode)
	if mode == mllp.ModeRAW {
		d.raw(key, f)
	} else {
		d.refuse(key, "is used only with transmissionMode: RAW: set that, or remove it", "delimiter", "idle", "length", "allowUnverifiedEnd")
	}
	if mode != mllp.ModeMLLPv2 {
		d.refuse(key, "is used only with transmissionMode: MLLPv2: set that, or remove it", "commitTimeout", "maxRetries")
	}
	d.within(key, "commitTimeout", f.CommitTimeout, maxTimeout)
	if f.MaxRetries > 1000 {
		d.at(join(key, "maxRetries"), "must be at most 1000; -1 means never")
	}
}

func (d *decoder) frameBytes(key string, f *Framing, mode mllp.Mode) {
	start, end := join(key, "startOfMessageBytes"), join(key, "endOfMessageBytes")
	if !d.clean(start) || !d.clean(end) {
		return
	}
	switch mode {
	case mllp.ModeRAW:
		d.refuse(key, "with transmissionMode: RAW messages have no frame: remove it, or write FRAME", "startOfMessageBytes", "endOfMessageBytes")
	case mllp.ModeMLLP, mllp.ModeMLLPv2:
		const others = "is not what MLLP has: write transmissionMode: FRAME for other bytes, or remove it"
		if d.has(start) && !bytes.Equal(f.StartOfMessageBytes, mllpStart) {
			d.at(start, others)
		}
		if d.has(end) && !bytes.Equal(f.EndOfMessageBytes, mllpEnd) {
			d.at(end, others)
		}
	case mllp.ModeFRAME:
		switch {
		case len(f.EndOfMessageBytes) == 0:
			d.at(end, "is missing: FRAME needs the bytes that end a message, such as 1C0D")
		case len(f.StartOfMessageBytes) > 0 && (bytes.Contains(f.StartOfMessageBytes, f.EndOfMessageBytes) || bytes.Contains(f.EndOfMessageBytes, f.StartOfMessageBytes)):
			d.at(end, "holds startOfMessageBytes, or is held by it: the end of a frame would look like its start")
		}
	}
}

func (d *decoder) raw(key string, f *Framing) {
	delimiter := join(key, "delimiter")
	if !d.has(delimiter) {
		d.at(delimiter, "is missing: say what ends a RAW message: eof, idle, length or newline")
		return
	}
	d.oneOf(delimiter, f.Delimiter, "eof", "idle", "length", "newline")
	if !d.clean(delimiter) {
		return
	}
	silence := f.Delimiter == "idle" || f.Delimiter == "length"
	if !silence {
		d.refuse(key, "is used only with delimiter: idle or length: remove it", "idle")
	}
	d.within(key, "idle", f.Idle, maxTimeout)
	switch length := join(key, "length"); {
	case f.Delimiter != "length":
		d.refuse(key, "is used only with delimiter: length: remove it", "length")
	case d.clean(length) && f.Length <= 0:
		d.at(length, "is missing or not positive: delimiter: length needs the length of a message in bytes")
	}
	if f.Delimiter == "eof" && f.KeepConnectionOpen != nil && *f.KeepConnectionOpen {
		d.at(join(key, "keepConnectionOpen"), "contradicts delimiter: eof, with which a message ends with its connection: remove one of the two")
	}
	if f.Delimiter == "newline" && f.AllowUnverifiedEnd {
		d.at(join(key, "allowUnverifiedEnd"), "with delimiter: newline the end of the connection ends no message: remove it")
	}
}
