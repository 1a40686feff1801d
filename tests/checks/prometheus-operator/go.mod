// For the CustomResourceDefinitions in its files: none of its code is built, so don't `go mod tidy`.
module sfunnel.io/tests/checks/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
