// For the CustomResourceDefinitions in its files: none of its code is built, so don't `go mod tidy`.
module sfunnel.io/tests/checks/cert-manager

go 1.26.0

require github.com/cert-manager/cert-manager v1.21.2
