// Package disk tells how full a disk is.
package disk

// Space is what a file system has, in bytes.
type Space struct {
	Size int64
	Free int64 // for who is not root
}

// Of returns the space of the file system that holds a directory. On systems where
// that cannot be asked the error is [errors.ErrUnsupported].
func Of(directory string) (Space, error) { return of(directory) }
