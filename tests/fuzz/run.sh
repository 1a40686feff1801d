#!/usr/bin/env bash
# Looks for inputs that break what tests/src/fuzz says.
#
#   tests/fuzz/run.sh [TARGET...]   every target, or these, for FUZZ_SECONDS each (600)
#
# Whatever reaches code that nothing reached before is kept in corpus/TARGET, on this machine, and the next
# run begins with it. seeds/TARGET has a few inputs for everybody, with which each corpus begins, and which
# `cargo test` checks on stable Rust; tests/fuzz/seeds.sh chooses some more from a corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -gt 0 ] || set -- ruleset annotations review certificates
found=0
for target in "$@"; do
    corpus=fuzz/corpus/$target artifacts=fuzz/artifacts/$target
    mkdir -p "$corpus" "$artifacts"
    options=(-timeout=10 -max_len=8192 -max_total_time="${FUZZ_SECONDS:-600}" -print_final_stats=1)
    [ ! -f "fuzz/$target.dict" ] || options+=("-dict=fuzz/$target.dict")
    echo "fuzz: $target, for ${FUZZ_SECONDS:-600} s"
    started=$(mktemp)
    # What is fuzzed has no `unsafe`, which is what the address sanitizer is for. Without it, several times
    # as many inputs are tried.
    if ! cargo +nightly fuzz run --sanitizer none "$target" "$corpus" "fuzz/seeds/$target" \
        -- "${options[@]}"; then
        found=1
        find "$artifacts" -type f -newer "$started" | while read -r input; do
            cat >&2 <<END
fuzz: $target: tests/$input
  once more:    (cd tests && cargo +nightly fuzz run --sanitizer none $target $input)
  without it:   cp tests/$input tests/fuzz/seeds/$target/ && cargo test -p tests --test fuzz
  less of it:   (cd tests && cargo +nightly fuzz tmin --sanitizer none $target $input)
  Keep it as a seed, under a name that says what it shows.
END
        done
    fi
    rm -f "$started"
done
exit $found
