module github.com/carewire/carewire/examples

go 1.26

require (
	github.com/carewire/carewire v0.0.0
	github.com/stretchr/testify v1.12.1
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace github.com/carewire/carewire => ../
