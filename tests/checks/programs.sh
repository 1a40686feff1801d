#!/usr/bin/env bash
# Makes sure that the programs that check manifests are there, and prints the folder that holds them.
#
# They are Go programs in the versions that go.mod pins, kept in $SFUNNEL_CACHE (by default
# ~/.cache/sfunnel) under these versions.
set -euo pipefail

say() { printf 'checks: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SFUNNEL_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/sfunnel}
programs=(github.com/yannh/kubeconform github.com/zegl/kube-score)

folder=$cache/checks
for module in "${programs[@]}"; do
    folder+=-${module##*/}-$(sed -n "s|^[[:space:]]*$module v\([^ ]*\).*|\1|p" "$here/go.mod")
done

if [ ! -d "$folder" ]; then
    . "$here/../go.sh"
    use_go
    say "building ${programs[*]##*/} (a minute)"
    # A build that breaks off leaves nothing under the final name.
    mkdir -p "$cache"
    new=$(mktemp -d "$folder.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    (cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$new/" tool) ||
        fail "they could not be built; see what go says above"
    chmod 755 "$new"
    mv "$new" "$folder"
    trap - EXIT
fi
printf '%s\n' "$folder"
