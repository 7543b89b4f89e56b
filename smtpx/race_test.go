//go:build race

package smtpx_test

const raceDetector = true
