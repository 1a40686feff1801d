#!/usr/bin/env bash
# Debian's kernels, and what a guest needs around one, for `make kernels`.
#
#   tests/kernels/fetch.sh              all kernels of list.txt
#   KERNEL=6.1 tests/kernels/fetch.sh   one line of them; KERNEL=newest: the newest that Debian has
#
# Prints a line for each: line, version, architecture, its folder (vmlinuz, modules.cpio) and the root
# file system. All of it is kept in $SFUNNEL_CACHE (by default ~/.cache/sfunnel) under its version; what is
# there is not asked for again.
set -euo pipefail
shopt -s inherit_errexit

say() { printf 'kernels: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
. "$here/../go.sh"
# shellcheck source=tests/apt.sh
. "$here/../apt.sh"

# What the guests run: tests, the loader, and what those call.
programs=(coreutils dash ethtool grep iproute2 kmod mount nftables procps util-linux)

# Packages of Debian's kernels for clouds, which are small, and their versions, oldest first.
images() {
    local arch=$1 suite=$2 names
    mapfile -t names < <(apt_for "$arch" "$suite" apt-cache pkgnames linux-image- |
        grep -E "^linux-image-[0-9].*-cloud-$arch\$")
    apt_for "$arch" "$suite" apt-cache --no-all-versions show "${names[@]}" |
        awk '/^Package: / { name = $2 } /^Version: / { print $2, name }' | sort -V
}

# `choose VERSION < IMAGES` prints the one to take.
choose() {
    local wanted=$1 line=${1%.*} images
    mapfile -t images
    {
        printf '%s\n' "${images[@]}" | grep -F "$wanted-" ||
            printf '%s\n' "${images[@]}" | grep "^${line//./\\.}\." | tail -n 1 | grep . ||
            { echo "$wanted-"; printf '%s\n' "${images[@]}"; } | sort -V | sed "1,/^$wanted-\$/d"
    } | head -n 1
}

# Fills a folder with a kernel.
unpack() {
    local arch=$1 suite=$2 package=$3 new=$4 packages=("$3") release=${3#linux-image-} modules part
    # From 6.19 on an image is two packages, and an empty one that depends on them.
    if apt_for "$arch" "$suite" apt-cache show "linux-binary-$release" >/dev/null 2>&1; then
        packages=("linux-binary-$release" "linux-modules-$release")
    fi
    mkdir "$new/packages" "$new/all" "$new/root"
    apt_download "$arch" "$suite" "$new/packages" "${packages[@]}"
    for part in "$new"/packages/*.deb; do dpkg -x "$part" "$new/all"; done
    find "$new/all" -name 'vmlinuz*' -size +1M -exec mv {} "$new/vmlinuz" \;
    modules=$(find "$new/all" -type d -path "*/modules/$release")
    [ -s "$new/vmlinuz" ] && [ -n "$modules" ] || fail "$package has no kernel, or no modules"
    # Those of networks, and what they need. Hardware has none of its own here.
    mkdir -p "$new/root/lib/modules/$release/kernel/drivers"
    for part in arch crypto lib net drivers/net; do
        [ ! -d "$modules/kernel/$part" ] ||
            cp -r "$modules/kernel/$part" "$new/root/lib/modules/$release/kernel/$part"
    done
    rm -rf "$new/root/lib/modules/$release/kernel/drivers/net"/{ethernet,wireless}
    for part in order builtin builtin.modinfo; do
        [ ! -e "$modules/modules.$part" ] || cp "$modules/modules.$part" "$new/root/lib/modules/$release"
    done
    depmod --basedir "$new/root" "$release" 2>"$new/depmod.log" || fail "depmod: $(cat "$new/depmod.log")"
    pack "$new/root" "$new/modules.cpio"
    rm -rf "$new"/{packages,all,root,depmod.log}
}

# A folder as an archive that the kernel unpacks at its start.
pack() {
    (cd "$1" && find . -print0 | cpio --null --create --format=newc --quiet) >"$2"
}

# Fills a folder with the root file system of a guest: this machine's release of Debian, as executables
# from here are to run there.
unpack_root() {
    local arch=$1 new=$2 release
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    say "the guests' root file system, $arch: mmdebstrap ${programs[*]} (30 MB, less than a minute)"
    mmdebstrap --quiet --mode=root --variant=extract --architectures="$arch" \
        --include="${programs[*]}" --dpkgopt='path-exclude=/usr/share/*' \
        --dpkgopt='path-exclude=/usr/lib/*/perl*' --dpkgopt='path-exclude=/usr/lib/*/gconv/*' \
        "$release" "$new/root" "deb $(apt_mirror "$release") $release main" ||
        fail 'mmdebstrap could not make it; see above'
    rm -rf "$new/root/var"
    pack "$new/root" "$new/root.cpio"
    rm -rf "$new/root"
}

# The kernel of a line of list.txt.
kernel() {
    local line=$1 version=$2 arch=$3 suite=$4 folder root image package
    folder=$cache/kernels/$arch-$version
    if [ "$version" = newest ] || [ ! -d "$folder" ]; then
        apt_update "$arch" "$suite" || fail "no list of packages of $suite for $arch"
        if [ "$version" = newest ]; then
            image=$(images "$arch" "$suite" | tail -n 1)
        else
            image=$(images "$arch" "$suite" | choose "$version")
        fi
        [ -n "$image" ] || fail "$suite has no kernel for $arch from $line on"
        package=${image#* }
        image=${image%%-*}
        [ "$image" = "$version" ] || [ "$version" = newest ] ||
            say "Linux $version can't be had any more; $image is taken"
        version=$image
        folder=$cache/kernels/$arch-$version
        make_once "$folder" unpack "$arch" "$suite" "$package"
    fi
    root=$cache/kernels/root-$arch-$(sha256sum <"${BASH_SOURCE[0]}" | cut -c -12)
    make_once "$root" unpack_root "$arch"
    printf '%s %s %s %s %s\n' "$line" "$version" "$arch" "$folder" "$root/root.cpio"
}

mkdir -p "$cache/kernels"
if [ "${KERNEL:-}" = newest ]; then
    kernel newest newest amd64 trixie-backports
    exit
fi
mapfile -t list < <(grep -v '^#' "$here/list.txt" | grep -E "^${KERNEL:-.*} ")
[ ${#list[@]} -gt 0 ] || fail "KERNEL=$KERNEL is none of list.txt: $(grep -v '^#' "$here/list.txt" | cut -d ' ' -f 1 | uniq | xargs)"
for entry in "${list[@]}"; do
    # shellcheck disable=SC2086 # Four words.
    kernel $entry
done
