//go:build linux || darwin

package dicomtls

import "syscall"

// freeBytes returns how much may still be written to the file system of dir.
func freeBytes(dir string) (n uint64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return st.Bavail * uint64(st.Bsize), true
}
