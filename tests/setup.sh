#!/usr/bin/env bash
# Installs what building and testing need, and says what it installs. Running it again does no harm.
#
#   tests/setup.sh          for `make demo`
#   tests/setup.sh lint     and for `make test`
#   tests/setup.sh bench    and for `make bench`
#   tests/setup.sh fuzz     and for `make fuzz`
#   tests/setup.sh cluster  and for `make cluster`
#   tests/setup.sh machine  the kernel's modules for `make cluster`, before anything that takes long
#   tests/setup.sh images   and for `make images`
#   tests/setup.sh checks   and for `make manifests-check`
#   tests/setup.sh kernels  and for `make kernels`
#   tests/setup.sh bpf      and for `make bpf`
#   tests/setup.sh cross ARCH   for tests/cross.sh: prints the environment in which cargo compiles for amd64
#                               or arm64
#
# Debian's packages come by apt-get, other programs by cargo and go. What takes long to build is kept, under
# its version, in $SFUNNEL_CACHE (by default ~/.cache/sfunnel).
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bpf_linker=0.13.0
llvm=22

# shellcheck source=tests/go.sh
. "$here/go.sh"
# shellcheck source=tests/apt.sh
. "$here/apt.sh"

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
    # Nothing that is there may go for it.
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends --no-remove \
        "${missing[@]}" >/dev/null ||
        fail "apt-get could not install them without removing others; see what it says above"
}

# `has_library RUSTC NAME TARGET`: whether a compiler has the library, `core` or `std`, for a target.
has_library() {
    local libdir
    libdir=$("$1" --print target-libdir --target "$3" 2>/dev/null) && ls "$libdir/lib$2"-*.rlib >/dev/null 2>&1
}

build_bpf_linker() {
    packages llvm-$llvm-dev libzstd-dev zlib1g-dev
    say "cargo install bpf-linker $bpf_linker into $cache (about a minute)"
    PATH=/usr/lib/llvm-$llvm/bin:$PATH LLVM_PREFIX=/usr/lib/llvm-$llvm \
        cargo install bpf-linker --version "$bpf_linker" --locked --quiet \
        --no-default-features --features "llvm-$llvm" --root "$1"
}

# What injector-bpf/build.sh compiles with: Debian's security suite has a stable compiler with `core` for BPF.
# The compiler of rustup that builds everything else stays as it is.
bpf_toolchain() {
    packages rustc-web libstd-rust-web-dev-bpf
    local prefix=$cache/bpf-linker-$bpf_linker-llvm-$llvm
    make_once "$prefix" build_bpf_linker
    # The cache may come from another machine.
    packages libllvm$llvm
    "$prefix/bin/bpf-linker" --version >/dev/null ||
        fail "$prefix/bin/bpf-linker does not run; remove $prefix and try again"
}

# The standard library for another architecture. It can't be installed: that would add the architecture to
# what this machine's dpkg and apt know.
fetch_std() {
    local arch=$1 version=$2 new=$3 suite
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)-security
    apt_update "$arch" "$suite"
    apt_download "$arch" "$suite" "$new" "libstd-rust-web-dev=$version" ||
        fail "$suite has another rustc-web than $version: upgrade it (apt-get install rustc-web cargo-web)"
    dpkg -x "$new"/*.deb "$new"
    rm "$new"/*.deb
}

# What compiles for an architecture. Prints the environment for cargo.
cross_toolchain() {
    local arch=$1 cpu target prefix flags='-C target-feature=+crt-static' version std
    case $arch in
        amd64) cpu=x86_64 ;;
        arm64) cpu=aarch64 ;;
        *) fail "unknown architecture: $arch; amd64 or arm64" ;;
    esac
    target=$cpu-unknown-linux-gnu
    prefix=${target^^}
    prefix=CARGO_TARGET_${prefix//-/_}
    if [ "$(rustc -vV | sed -n 's/^host: //p')" != "$target" ]; then
        packages "gcc-${cpu/_/-}-linux-gnu" "libc6-dev-$arch-cross"
        echo "${prefix}_LINKER=$cpu-linux-gnu-gcc"
    fi
    if ! has_library rustc std "$target"; then
        packages rustc-web cargo-web
        echo RUSTC=/usr/bin/rustc
        if ! has_library /usr/bin/rustc std "$target"; then
            version=$(dpkg-query -W -f='${Version}' rustc-web)
            std=$cache/rust-std-$arch-$version
            make_once "$std" fetch_std "$arch" "$version"
            flags+=" --sysroot $std/usr"
        fi
    fi
    echo "${prefix}_RUSTFLAGS=$flags"
    echo "CARGO_BUILD_TARGET=$target"
}

# `module NAME COMMAND...` loads a module of the kernel, after which the command succeeds.
module() {
    local name=$1
    shift
    command -v modprobe >/dev/null || packages kmod
    say "modprobe $name"
    modprobe "$name" && "$@" || fail "a node needs the kernel module $name, which can't be loaded"
}

# What a node needs of the machine, and no package brings.
machine() {
    [ "$(id -u)" = 0 ] || fail 'root is needed: a node makes namespaces, mounts and cgroups'
    local bridge=/proc/sys/net/bridge setting procs
    if [ ! -d $bridge ]; then
        module br_netfilter test -d $bridge
        # On the machine's own bridges packets go on as before. A node has settings of its own.
        say 'sysctl net.bridge.bridge-nf-call-{arp,ip,ip6}tables=0, as it was without the module'
        for setting in arptables iptables ip6tables; do
            echo 0 >$bridge/bridge-nf-call-$setting
        done
    fi
    has_overlay() { grep -qw overlay /proc/filesystems; }
    has_overlay || module overlay has_overlay
    for procs in /sys/fs/cgroup/{,*/}cgroup.procs; do
        [ ! -w "$procs" ] || return 0
    done
    fail 'pods need cgroups: /sys/fs/cgroup has none here, or is mounted read-only'
}

# Before anything that takes long.
case ${1:-} in
    machine) machine; exit ;;
    cluster) machine ;;
esac

command -v cargo >/dev/null ||
    fail "$(id -un) has no cargo; install Rust 1.91 or later, with rustup or from your distribution"
minor=$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
[ "${minor:-0}" -ge 91 ] || fail "$(rustc --version) is too old; Rust 1.91 or later is needed"
packages gcc libc6-dev iproute2 nftables util-linux

case ${1:-} in
    '') ;;
    bpf) bpf_toolchain ;;
    cross) cross_toolchain "${2:?amd64 or arm64}" ;;
    lint)
        cargo fmt --version >/dev/null && cargo clippy --version >/dev/null ||
            fail 'rustfmt or clippy is missing: rustup component add rustfmt clippy'
        ;;
    bench)
        # What the original does in every container: a Python script, clang, tc.
        packages python3 clang libbpf-dev linux-libc-dev
        # Go programs are for these sections alone.
        if [[ 'webhook webhook-memory' == *"${BENCH:-}"* ]]; then
            use_go
            "$here/bench/programs.sh" >/dev/null
        fi
        ;;
    fuzz)
        rustup run nightly rustc --version >/dev/null 2>&1 ||
            fail 'fuzzing needs a nightly compiler: rustup toolchain install nightly'
        packages g++
        if ! command -v cargo-fuzz >/dev/null; then
            say 'cargo install cargo-fuzz'
            cargo install cargo-fuzz --locked --quiet
        fi
        ;;
    images) packages buildah mmdebstrap mount qemu-user ;;
    cluster)
        packages runc iptables conntrack busybox-static ethtool mount procps
        use_go
        "$here/cluster/programs.sh" >/dev/null
        ;;
    kernels)
        packages qemu-system-x86 qemu-system-arm cpio kmod mmdebstrap binutils
        "$here/kernels/fetch.sh" >/dev/null
        ;;
    checks)
        packages jq yq
        use_go
        "$here/checks/programs.sh" >/dev/null
        "$here/cluster/programs.sh" >/dev/null
        ;;
    *) fail "unknown: $1" ;;
esac
