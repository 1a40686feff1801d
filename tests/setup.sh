#!/usr/bin/env bash
# Installs what building and testing need, and says what it installs. Running it again does no harm.
#
#   tests/setup.sh          for `make demo` and `make test`
#   tests/setup.sh bench    and for `make bench`
#   tests/setup.sh fuzz     and for `make fuzz`
#
# Debian's packages come by apt-get, bpf-linker by cargo. What takes long to build is kept, under its
# version, in $SFUNNEL_CACHE (by default ~/.cache/sfunnel).
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

cache=${SFUNNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sfunnel}
bpf_linker=0.13.0
llvm=22

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "root is needed for: $*"
    fi
}

# Installs those of the packages that are missing.
packages() {
    local missing=() package
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" = 'install ok installed' ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "this is no Debian; install what these packages of Debian hold: ${missing[*]}"
    say "apt-get install ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Whether something here compiles for the BPF target already.
has_bpf_compiler() {
    local rustc libdir
    for rustc in ${SFUNNEL_BPF_RUSTC:-} /usr/bin/rustc; do
        [ -x "$rustc" ] || continue
        libdir=$("$rustc" --print target-libdir --target bpfel-unknown-none 2>/dev/null) || continue
        ls "$libdir"/libcore-*.rlib >/dev/null 2>&1 && return 0
    done
    command -v rustup >/dev/null &&
        [ -d "$(rustup run nightly rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/core" ]
}

# A compiler for the BPF target, and the linker that goes with its LLVM.
bpf_toolchain() {
    [ -z "${SFUNNEL_BPF_OBJECT:-}" ] || return 0
    # Debian's security suite has a stable compiler with `core` for BPF. The compiler of rustup that
    # builds everything else stays as it is.
    has_bpf_compiler || packages rustc-web cargo-web libstd-rust-web-dev-bpf
    command -v bpf-linker >/dev/null && return 0
    local prefix=$cache/bpf-linker-$bpf_linker-llvm-$llvm
    if [ ! -x "$prefix/bin/bpf-linker" ]; then
        packages llvm-$llvm-dev libzstd-dev zlib1g-dev
        say "cargo install bpf-linker $bpf_linker into $prefix (about a minute)"
        # A build that breaks off leaves nothing under the final name.
        rm -rf "$prefix.new"
        PATH=/usr/lib/llvm-$llvm/bin:$PATH LLVM_PREFIX=/usr/lib/llvm-$llvm \
            cargo install bpf-linker --version "$bpf_linker" --locked --quiet \
            --no-default-features --features "llvm-$llvm" --root "$prefix.new"
        rm -rf "$prefix"
        mv "$prefix.new" "$prefix"
    fi
    # The cache may come from another machine.
    packages libllvm$llvm
    "$prefix/bin/bpf-linker" --version >/dev/null ||
        fail "$prefix/bin/bpf-linker does not run; remove $prefix and try again"
}

command -v cargo >/dev/null ||
    fail 'cargo is missing; install Rust 1.91 or later, with rustup or from your distribution'
packages gcc libc6-dev iproute2 nftables util-linux
bpf_toolchain

case ${1:-} in
    '') ;;
    # What the original does in every container: a Python script, clang, tc.
    bench) packages python3 clang libbpf-dev linux-libc-dev ;;
    fuzz)
        rustup run nightly rustc --version >/dev/null 2>&1 ||
            fail 'fuzzing needs a nightly compiler: rustup toolchain install nightly'
        packages g++
        if ! command -v cargo-fuzz >/dev/null; then
            say 'cargo install cargo-fuzz'
            cargo install cargo-fuzz --locked --quiet
        fi
        ;;
    *) fail "unknown: $1" ;;
esac
