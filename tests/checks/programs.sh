#!/usr/bin/env bash
# Makes sure that the programs that check manifests are there, and prints the folder that holds them.
#
# They are Go programs in the versions that go.mod pins, kept in $SFUNNEL_CACHE (by default
# ~/.cache/sfunnel) under these versions.
set -euo pipefail

say() { printf 'checks: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
. "$here/../go.sh"
programs=(github.com/yannh/kubeconform github.com/zegl/kube-score)

folder=$cache/checks
for module in "${programs[@]}"; do
    folder+=-${module##*/}-$(sed -n "s|^[[:space:]]*$module v\([^ ]*\).*|\1|p" "$here/go.mod")
done

build_all() {
    use_go
    say "building ${programs[*]##*/} (a minute)"
    CGO_ENABLED=0 go -C "$here" build -trimpath -ldflags '-s -w' -o "$1/" tool ||
        fail "they could not be built; see what go says above"
}

make_once "$folder" build_all
printf '%s\n' "$folder"
