module github.com/carewire/carewire

go 1.26
