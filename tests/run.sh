#!/usr/bin/env bash
# Runs all tests, as `cargo test` does, in less time: clusters mostly wait, so what needs none runs beside
# them. What compares times with each other comes last, alone.
#
# What the clusters' tests say is in target/cluster.log, and is shown when they have ended.
set -euo pipefail
shopt -s failglob
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'tests: %s\n' "$*" >&2; }

# By their files, so that none is forgotten that is new.
others=()
for file in */tests/*.rs */*/tests/*.rs */*/*/tests/*.rs; do
    name=$(basename "$file" .rs)
    case $name in
        cluster | chaos) ;;
        *) others+=(--test "$name") ;;
    esac
done

cargo test --locked --no-run

# A group of its own, which ends as a whole.
set -m
cargo test --locked --test cluster >target/cluster.log 2>&1 &
clusters=$!
set +m
trap 'kill -- "-$clusters" 2>/dev/null || true' EXIT
say 'those of clusters run beside the others; target/cluster.log has what they say'

cargo test --locked --lib --bins "${others[@]}"
cargo test --locked --doc
say 'waiting for those of clusters'
status=0
wait "$clusters" || status=$?
trap - EXIT
cat target/cluster.log
[ "$status" = 0 ] || { say 'those of clusters have failed'; exit "$status"; }
cargo test --locked --test chaos
