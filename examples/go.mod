module github.com/carewire/carewire/examples

go 1.26

require github.com/carewire/carewire v0.0.0

replace github.com/carewire/carewire => ../
