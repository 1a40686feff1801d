#!/usr/bin/env bash
# Makes sure that the programs that check manifests are there, and prints the folder that holds them.
#
# They are Go programs in the versions that go.mod here and in prometheus pins, kept in $SFUNNEL_CACHE (by
# default ~/.cache/sfunnel) under these versions. Prometheus needs other versions of what all of them use,
# so its promtool has modules of its own.
set -euo pipefail

say() { printf 'checks: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
. "$here/../go.sh"
modules=(github.com/yannh/kubeconform github.com/zegl/kube-score github.com/prometheus/prometheus)

folder=$cache/checks
for module in "${modules[@]}"; do
    folder+=-${module##*/}-$(
        sed -n "s|^[[:space:]]*$module v\([^ ]*\).*|\1|p" "$here/go.mod" "$here/prometheus/go.mod"
    )
done

build_all() {
    use_go
    say "building kubeconform, kube-score and promtool (two to four minutes on two cores)"
    # Without what finds targets in clouds, which is most of Prometheus.
    CGO_ENABLED=0 go -C "$here" build -trimpath -ldflags '-s -w' -o "$1/" tool &&
        CGO_ENABLED=0 go -C "$here/prometheus" build -trimpath -ldflags '-s -w' -tags remove_all_sd \
            -o "$1/" tool || fail "they could not be built; see what go says above"
}

make_once "$folder" build_all
printf '%s\n' "$folder"
