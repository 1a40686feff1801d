#!/usr/bin/env bash
# Chooses a few inputs of a grown corpus for everybody: the small ones that reach the most.
#
#   tests/fuzz/seeds.sh TARGET [BYTES]   of at most so many bytes (600)
#
# What is in seeds/TARGET stays; what it doesn't reach is added, named by its hash.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${1:?which target?}
chosen=$(mktemp -d)
trap 'rm -rf "$chosen"' EXIT
cp "fuzz/seeds/$target"/* "$chosen"
cargo +nightly fuzz run --sanitizer none "$target" "$chosen" "fuzz/corpus/$target" -- \
    -set_cover_merge=1 -max_len="${2:-600}"
cp -n "$chosen"/* "fuzz/seeds/$target"
ls "fuzz/seeds/$target" | wc -l
