#!/usr/bin/env bash
# Makes sure that the programs of `make bench` that Debian doesn't have are there, and prints the folder
# that holds them.
#
# They are Go programs, built from their modules with the versions that the go.mod files beside this
# script pin, and kept in $SFUNNEL_CACHE (by default ~/.cache/sfunnel) under these versions.
#
#   vegeta   sends requests at a steady rate, and says how long each took
#   agnhost  has the admission webhook of Kubernetes' own end-to-end tests
set -euo pipefail

say() { printf 'bench: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
. "$here/../go.sh"

# The version of a module that a go.mod requires, without the v.
pinned() { sed -n "s|^[[:space:]]*$2 v\([^ ]*\).*|\1|p" "$here/$1/go.mod" | head -n 1; }

vegeta=$(pinned vegeta github.com/tsenart/vegeta/v12)
kubernetes=$(pinned agnhost k8s.io/kubernetes)
folder=$cache/bench-vegeta-$vegeta-agnhost-$kubernetes

# `build MODULES OUTPUT PACKAGE`
build() {
    CGO_ENABLED=0 go -C "$here/$1" build -trimpath -ldflags '-s -w' -o "$2" "$3" ||
        fail "$3 could not be built; see what go says above"
}

build_all() {
    use_go
    say "building vegeta $vegeta and agnhost of Kubernetes $kubernetes (up to three minutes)"
    build vegeta "$1/vegeta" github.com/tsenart/vegeta/v12
    build agnhost "$1/agnhost" k8s.io/kubernetes/test/images/agnhost
}

make_once "$folder" build_all
printf '%s\n' "$folder"
