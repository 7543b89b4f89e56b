//go:build linux || darwin

package disk

import "syscall"

func of(directory string) (Space, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(directory, &st); err != nil {
		return Space{}, err
	}
	block := int64(st.Bsize)                                                          //nolint:unconvert // its type is not the same everywhere
	return Space{Size: int64(st.Blocks) * block, Free: int64(st.Bavail) * block}, nil //nolint:gosec // disks are smaller than that
}
