module github.com/carewire/carewire

go 1.26

require (
	github.com/stretchr/testify v1.12.1
	golang.org/x/crypto v0.55.0
	golang.org/x/sync v0.22.0
	software.sslmate.com/src/go-pkcs12 v0.7.4
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
