//go:build race

package dicomtls_test

const raceDetector = true
