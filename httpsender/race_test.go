//go:build race

package httpsender_test

const raceDetector = true
