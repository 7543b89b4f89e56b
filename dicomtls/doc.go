// Package dicomtls exchanges DICOM objects over TCP, with TLS or without.
package dicomtls
