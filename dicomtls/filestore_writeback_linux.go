package dicomtls

import (
	"os"
	"syscall"
)

// startWriteback has the system begin to bring to the disk what was written to f
// at offset, so that the sync at the end finds most of it done while more was
// arriving. It is a hint: only the sync counts.
func startWriteback(f *os.File, offset, n int64) {
	const begin = 2 // SYNC_FILE_RANGE_WRITE
	_ = syscall.SyncFileRange(int(f.Fd()), offset, n, begin)
}
