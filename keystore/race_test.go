//go:build race

package keystore_test

const raceDetector = true
