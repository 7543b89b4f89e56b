//go:build !linux

package dicomtls_test

import "testing"

func TestMain(m *testing.M) { leakcheckMain(m) }
