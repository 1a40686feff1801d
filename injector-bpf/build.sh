#!/usr/bin/env bash
# Compiles the BPF object that the loader carries.
#
#   injector-bpf/build.sh          makes sfunnel.bpf.o anew: `make bpf`, after a change of the program
#   injector-bpf/build.sh check    fails unless sfunnel.bpf.o is what this source compiles to: part of
#                                  `make test`
#
# The object is committed, so whoever builds the loader needs neither LLVM nor bpf-linker. The same source
# and tools make the same bytes, in any folder. The tools are those of `tests/setup.sh bpf`: Debian's
# rustc-web, which has `core` for BPF, and bpf-linker from the cache.
set -euo pipefail

say() { printf 'bpf: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
object=$here/sfunnel.bpf.o
tools=$here/sfunnel.bpf.txt
rustc=/usr/bin/rustc
linker=${SFUNNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sfunnel}/bpf-linker-0.13.0-llvm-22/bin/bpf-linker
target=bpfel-unknown-none

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A workspace of its own, elsewhere, with the lock file of all: the other crates are not looked at.
cp "$here/../Cargo.lock" "$scratch"
cp -r "$here" "$scratch/injector-bpf"
sed '/^members = \[/,/^\]/c members = ["injector-bpf", "injector-bpf/abi"]' "$here/../Cargo.toml" |
    sed '/^default-members/d; /^exclude/d; /^\[profile.dev/,/^$/d' >"$scratch/Cargo.toml"

# aya-ebpf asks for `asm_experimental_arch` on the BPF target, which a stable compiler only has so.
(cd "$scratch" && env -u RUSTFLAGS -u RUSTUP_TOOLCHAIN \
    RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_STRIP=none \
    CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER="$linker" \
    cargo build --quiet --release --package injector-bpf --target $target --target-dir "$scratch/target") ||
    fail "$rustc and $linker could not build it; tests/setup.sh bpf installs them"
made=$scratch/target/$target/release/sfunnel
"$rustc" --version >"$scratch/tools"
"$linker" --version >>"$scratch/tools"

case ${1:-} in
    '')
        cp "$made" "$object"
        chmod 644 "$object"
        cp "$scratch/tools" "$tools"
        say "made $object with $(paste -sd, "$tools")"
        ;;
    check)
        cmp -s "$scratch/tools" "$tools" ||
            fail "$object was made with $(paste -sd, "$tools"); this machine has" \
                "$(paste -sd, "$scratch/tools"): run \`make bpf\`, test, and commit the object"
        cmp -s "$made" "$object" ||
            fail "$object is not what the source compiles to: run \`make bpf\`, and commit the object"
        say "$object is what the source compiles to"
        ;;
    *) fail "unknown: $1" ;;
esac
