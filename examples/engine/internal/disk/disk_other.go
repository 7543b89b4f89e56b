//go:build !linux && !darwin

package disk

import "errors"

func of(string) (Space, error) { return Space{}, errors.ErrUnsupported }
