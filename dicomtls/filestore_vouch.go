package dicomtls

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
)

// Vouch says for which objects the store does not vouch, and why; for the others it
// does. It is what a [Committer] asks. An object counts when it has its name on the
// disk, and that is synced, under the SOP class of the reference:
//
//	0112  there is no object of this SOP Instance UID
//	0119  there is one, of another SOP class
//	0110  it cannot be told: the file or the directory cannot be read
//
// Of the object itself no more is read than the file meta information.
func (s *FileStore) Vouch(ctx context.Context, refs []Reference) []FailedReference {
	// An object that has just got its name may not be on the disk yet.
	err := s.Open()
	if err == nil {
		err = syncDir(s.Dir)
	}
	var failed []FailedReference
	for _, ref := range refs {
		reason := StatusProcessingFailure
		if err == nil && ctx.Err() == nil {
			reason = s.holds(ref)
		}
		if reason != StatusSuccess {
			failed = append(failed, FailedReference{ref, reason})
		}
	}
	return failed
}

// holds returns StatusSuccess if the store has the object.
func (s *FileStore) holds(ref Reference) Status {
	if !validUID(ref.SOPInstanceUID) {
		return StatusNoSuchObject
	}
	answer := StatusNoSuchObject
	for n := 1; ; n++ {
		meta, err := readMeta(s.path(ref.SOPInstanceUID, n))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return answer
		case err != nil:
			return StatusProcessingFailure
		case meta.SOPInstanceUID == ref.SOPInstanceUID && meta.SOPClassUID == ref.SOPClassUID:
			return StatusSuccess
		}
		answer = StatusClassConflict
	}
}

func readMeta(name string) (FileMeta, error) {
	f, err := os.Open(name)
	if err != nil {
		return FileMeta{}, err
	}
	defer f.Close()
	meta, _, err := ReadFileMeta(bufio.NewReaderSize(f, 512))
	return meta, err
}
