package dicomtls

import "fmt"

// Status is the outcome of an operation in the words of DIMSE: the field Status
// (0000,0900) of a response. See PS3.7 Annex C, for C-STORE PS3.4 Table B.2-1.
type Status uint16

// The values that this package sends or treats in a way of their own. Any
// other value of a peer is kept as it is; its class follows from its first digits.
const (
	StatusSuccess Status = 0x0000

	StatusCoercion          Status = 0xB000 // stored, but values were changed
	StatusElementsDiscarded Status = 0xB006 // stored, but without some elements
	StatusClassMismatch     Status = 0xB007 // stored, although it does not match its SOP class

	StatusProcessingFailure     Status = 0x0110
	StatusNoSuchObject          Status = 0x0112
	StatusNoSuchEventType       Status = 0x0113
	StatusNoSuchArgument        Status = 0x0114
	StatusInvalidArgument       Status = 0x0115
	StatusInvalidObjectInstance Status = 0x0117
	StatusNoSuchSOPClass        Status = 0x0118
	StatusClassConflict         Status = 0x0119
	StatusSOPClassNotSupported  Status = 0x0122
	StatusNoSuchAction          Status = 0x0123
	StatusNotAuthorized         Status = 0x0124
	StatusDuplicateInvocation   Status = 0x0210
	StatusMissingAttribute      Status = 0x0120
	StatusUnrecognizedOperation Status = 0x0211
	StatusMistypedArgument      Status = 0x0212
	StatusResourceLimitation    Status = 0x0213

	StatusOutOfResources       Status = 0xA700 // disk full, too large: another try may help
	StatusDataSetMismatch      Status = 0xA900 // the data set is not of the SOP class that was said
	StatusCannotUnderstand     Status = 0xC000 // the data set cannot be read
	StatusDuplicateTransaction Status = 0x0131 // storage commitment alone: PS3.4 J.3.3.1.3
)

// Stored reports whether a C-STORE with this status has taken the object: with
// success, or with a warning.
func (s Status) Stored() bool { return s == StatusSuccess || s.Warning() }

// Warning reports whether the operation succeeded with a remark: 0001, 0107,
// 0116 and Bxxx (PS3.7 C.3).
func (s Status) Warning() bool {
	return s>>12 == 0xB || s == 0x0001 || s == 0x0107 || s == 0x0116
}

// Retryable reports whether the same operation may meet with success later:
// true for A7xx (out of resources) and 0213 (resource limitation). All other
// failures lie in the object or in the peer's rules.
func (s Status) Retryable() bool { return s>>8 == 0xA7 || s == StatusResourceLimitation }

// Code returns the four hexadecimal digits of the status, such as "A700".
func (s Status) Code() string { return fmt.Sprintf("%04X", uint16(s)) }

// String returns Code and what it means.
func (s Status) String() string { return s.Code() + " " + s.meaning() }

func (s Status) meaning() string {
	if text, known := statusTexts[s]; known {
		return text
	}
	switch {
	case s>>8 == 0xA7:
		return "out of resources"
	case s>>8 == 0xA9:
		return "data set does not match SOP class"
	case s>>12 == 0xC:
		return "cannot understand"
	case s.Warning():
		return "warning"
	default:
		return "failure"
	}
}

var statusTexts = map[Status]string{
	StatusSuccess:               "success",
	StatusCoercion:              "coercion of data elements",
	StatusElementsDiscarded:     "elements discarded",
	StatusClassMismatch:         "data set does not match SOP class, stored",
	StatusProcessingFailure:     "processing failure",
	StatusNoSuchObject:          "no such object instance",
	StatusNoSuchEventType:       "no such event type",
	StatusNoSuchArgument:        "no such argument",
	StatusInvalidArgument:       "invalid argument value",
	StatusInvalidObjectInstance: "invalid object instance",
	StatusNoSuchSOPClass:        "no such SOP class",
	StatusClassConflict:         "class-instance conflict",
	StatusSOPClassNotSupported:  "SOP class not supported",
	StatusNoSuchAction:          "no such action",
	StatusNotAuthorized:         "not authorized",
	StatusDuplicateInvocation:   "duplicate invocation",
	StatusMissingAttribute:      "missing attribute",
	StatusUnrecognizedOperation: "unrecognized operation",
	StatusMistypedArgument:      "mistyped argument",
	StatusResourceLimitation:    "resource limitation",
	StatusDuplicateTransaction:  "duplicate transaction UID",
}
