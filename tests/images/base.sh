#!/usr/bin/env bash
# The base of the images' build stage, without a registry: this machine's own release of Debian, from
# this machine's own sources of packages, with what tests/setup.sh would install.
#
#   tests/images/base.sh FOLDER     fills the empty folder
#   tests/images/base.sh --name     prints the release and a hash of this recipe
set -euo pipefail

packages=(
    # Debian's stable compiler, which has `core` for BPF too, and the LLVM that bpf-linker is linked to.
    cargo-web libllvm22 libstd-rust-web-dev-bpf rustc-web
    gcc libc6-dev make
    ca-certificates iproute2 nftables util-linux
)

fail() { printf 'images: %s\n' "$*" >&2; exit 1; }

# shellcheck disable=SC1091 # Every Debian has it.
release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
if [ -z "$release" ] || ! command -v mmdebstrap >/dev/null; then
    fail 'the base is made by mmdebstrap on Debian; elsewhere, BUILD_IMAGE names one of a registry'
fi

if [ "${1:?a folder, or --name}" = --name ]; then
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

# How this machine fetches: proxies and the like.
fetching=$scratch/apt.conf
apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries)' >"$fetching" || true

# shellcheck disable=SC2016 # $1 is mmdebstrap's: the new root.
mmdebstrap --quiet --mode=root --variant=apt --include="${packages[*]}" \
    --aptopt="$fetching" --dpkgopt=path-exclude=/usr/share/{doc,locale,man}/'*' \
    --customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"' \
    "$release" "$1" "${sources[@]}"
