//go:build race

package mllp_test

const raceDetector = true
