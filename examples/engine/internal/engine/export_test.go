package engine

// What the fuzz targets look at.
var (
	Find         = find
	WithCharset  = withCharset
	EncodeReplay = encodeReplay
	DecodeReplay = decodeReplay
)
