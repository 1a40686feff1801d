#!/usr/bin/env bash
# Bases for images, without a registry: this machine's own release of Debian, from this machine's own
# sources of packages.
#
#   tests/images/base.sh build FOLDER     fills the empty folder with the base of the build stages, which
#                                         has what tests/setup.sh would install
#   tests/images/base.sh debian FOLDER    with a Debian that has nothing but apt
#   tests/images/base.sh build --name     prints the release and a hash of this recipe
set -euo pipefail

fail() { printf 'images: %s\n' "$*" >&2; exit 1; }

# shellcheck disable=SC1091 # Every Debian has it.
release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
if [ -z "$release" ] || ! command -v mmdebstrap >/dev/null; then
    fail 'the base is made by mmdebstrap on Debian; elsewhere, BUILD_IMAGE names one of a registry'
fi

packages=()
other=
case ${1:?build or debian} in
    build)
        arch=$(dpkg --print-architecture)
        case $arch in
            amd64) other=arm64 gcc=aarch64 ;;
            arm64) other=amd64 gcc=x86-64 ;;
            *) fail "a base compiles for amd64 and arm64; this machine is $arch" ;;
        esac
        packages=(
            # Debian's stable compiler, which has a standard library for both architectures.
            cargo-web rustc-web
            gcc libc6-dev make
            "gcc-$gcc-linux-gnu" "libc6-dev-$other-cross"
            ca-certificates iproute2 nftables util-linux
        )
        ;;
    debian) ;;
    *) fail "unknown: $1; build or debian" ;;
esac

if [ "${2:?a folder, or --name}" = --name ]; then
    hash=$(sha256sum <"${BASH_SOURCE[0]}")
    printf '%s-%s\n' "$release" "${hash:0:12}"
    exit
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
    [ -s "$file" ] || continue
    # The installer leaves a line about its disc, which nobody has in the drive any more.
    sed '/^[[:space:]]*deb.*[[:space:]]cdrom:/d' "$file" >"$scratch/${file##*/}"
    sources+=("$scratch/${file##*/}")
done
[ ${#sources[@]} -gt 0 ] || fail 'apt has no sources: nothing in /etc/apt/sources.list{,.d}'

fetching=$scratch/apt.conf
"$(dirname "${BASH_SOURCE[0]}")/fetching.sh" >"$fetching"

options=()
if [ -n "$other" ]; then
    # The standard library for the other architecture, without the libraries that the package depends on:
    # static executables need none of them.
    options=(
        --architectures="$arch,$other"
        --customize-hook="cd $scratch &&
            APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get download -qq libstd-rust-web-dev:$other &&
            dpkg -x libstd-*.deb \"\$1\""
    )
fi

# shellcheck disable=SC2016 # $1 in the hook is mmdebstrap's: the new root.
mmdebstrap --quiet --mode=root --variant=apt ${packages:+--include="${packages[*]}"} \
    "${options[@]}" --aptopt="$fetching" --dpkgopt=path-exclude=/usr/share/{doc,locale,man}/'*' \
    --customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"' \
    "$release" "$2" "${sources[@]}"
