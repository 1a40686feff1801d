#!/usr/bin/env bash
# Builds the images, without a daemon and without a registry, and leaves them where `ctr images import`
# and `docker load` take them from: target/images/{webhook,loader,example}.tar for machines like this one,
# and {webhook,loader,example}-arm64.tar for those of the other architecture (-amd64.tar on arm64). For the
# tests of use cases, there are nfacctd.tar and the root file system of a router as well.
#
#   BUILD_IMAGE=docker.io/library/rust:1-bookworm   another base of the build stage than the one that
#                                                   tests/images/base.sh makes of this Debian
#
# Storage, caches and finished archives are in $SFUNNEL_CACHE/images (by default ~/.cache/sfunnel/images):
# this machine's own images and containers stay as they are. An archive is taken from there as long as
# nothing changed of what it is made from, the commit in its labels among it.
set -euo pipefail
shopt -s inherit_errexit

say() { printf 'images: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || fail 'root is needed: layers have owners'
# So the mounts of a run that is killed end with it.
[ -n "${SFUNNEL_IMAGES_UNSHARED:-}" ] || SFUNNEL_IMAGES_UNSHARED=1 exec unshare --mount "$0" "$@"
# shellcheck source=tests/go.sh
. "$(dirname "${BASH_SOURCE[0]}")/go.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

images=$cache/images
scratch=$images/scratch
out=target/images
mkdir -p "$images/archives" "$images/tmp" "$out"

# One run at a time, whichever clone it is of. buildah inherits the lock: where this script is killed, the
# next run waits until buildah has ended too.
exec 9>"$images/lock"
flock --nonblock 9 || { say 'waiting for another run'; flock 9; }

# What is this machine's own, and its cargo's: registries, mirrors, certificates. The build stage sees it,
# the images don't. buildah itself hands on the variables for proxies.
network() {
    local certificates=${CARGO_HTTP_CAINFO:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
    local config=${CARGO_HOME:-$HOME/.cargo}/config.toml
    [ ! -s "$certificates" ] ||
        printf '%s\n' --volume "$certificates:/etc/ssl/certs/ca-certificates.crt:ro"
    if [ -s "$config" ]; then
        awk '/^\[/ { keep = /^\[(http|net|registr|source)/ } keep' "$config" >"$scratch/cargo.toml"
        printf '%s\n' --volume "$scratch/cargo.toml:/var/cache/cargo/config.toml:ro"
    fi
}

# A storage of our own. `chroot` is the isolation that needs neither cgroups nor a container runtime.
prepare() {
    local driver=vfs
    rm -rf "$scratch"
    mkdir -p "$scratch"/{lower,upper,work,merged,run}
    # Not every file system can be under an overlay; another overlay can't.
    if mount -t overlay -o "lowerdir=$scratch/lower,upperdir=$scratch/upper,workdir=$scratch/work" \
        overlay "$scratch/merged" 2>/dev/null; then
        umount "$scratch/merged"
        driver=overlay
    fi
    printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' \
        "$driver" "$images/storage-$driver" "$scratch/run" >"$scratch/storage.conf"
    export CONTAINERS_STORAGE_CONF=$scratch/storage.conf CONTAINERS_CONF=/dev/null BUILDAH_ISOLATION=chroot
    # The Dockerfiles' cache mounts are in here.
    export TMPDIR=$images/tmp
    trap 'buildah rm --all >/dev/null; rm -rf "$scratch"' EXIT

    # What a run that was killed has left.
    buildah rm --all >/dev/null
    buildah rmi --prune >/dev/null
    # Artefacts of old compilers and dependencies are never removed one by one.
    [ "$(du -sm "$images/tmp" | cut -f 1)" -lt 4000 ] || rm -rf "${images:?}/tmp"/*
}

# Makes a base by its recipe unless it is there.
base() {
    local name=$1 recipe=$2 container
    ! buildah inspect --type image "$name" >/dev/null 2>&1 || return 0
    say "making $name (a minute)"
    container=$(buildah from scratch)
    tests/images/base.sh "$recipe" "$(buildah mount "$container")"
    buildah commit --quiet "$container" "$name" >/dev/null
    buildah rm "$container" >/dev/null
    # This one and the one before: another clone may be at another recipe.
    buildah images --quiet --filter "reference=${name%:*}" | tail -n +3 | xargs -r buildah rmi >/dev/null
}

# Fails unless the image is what its users count on: the program alone, static, with its architecture,
# user and labels.
check() {
    local id=$1 arch=$2 program=$3 user=$4 container root files label
    [ "$(buildah inspect --type image --format '{{.OCIv1.Architecture}}' "$id")" = "$arch" ] ||
        fail "$program: the image's architecture is not $arch"
    [ "$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$id")" = "$user" ] ||
        fail "$program: the image's user is not $user"
    for label in title description licenses source version revision; do
        [ -n "$(buildah inspect --type image --format \
            "{{index .OCIv1.Config.Labels \"org.opencontainers.image.$label\"}}" "$id")" ] ||
            fail "$program: the image has no label org.opencontainers.image.$label"
    done
    container=$(buildah from --pull-never "$id")
    root=$(buildah mount "$container")
    files=$(cd "$root" && find . -type f -o -type l | sort)
    [ "$files" = "./$program" ] || fail "$program: the image has other files: $files"
    # With neither a dynamic linker nor a library around it.
    case $arch in
        "$own_arch") chroot --userspec="$user" "$root" "/$program" --version ;;
        *) "$emulator" -L "$root" "$root/$program" --version ;;
    esac >/dev/null || fail "$program: does not run in its image for $arch"
    buildah rm "$container" >/dev/null
}

# Builds an image, with the arguments of `buildah build`, and prints its id.
build() {
    local name=$1 log=$out/$1.log
    shift
    say "building $name (log: $log)"
    buildah build --iidfile "$scratch/id" "$@" >"$log" 2>&1 ||
        { tail -n 30 "$log" >&2; fail "$name could not be built; $log tells all"; }
    cat "$scratch/id"
}

# Moves an image out of the storage, into an archive.
archive() {
    local id=$1 reference=$2 archive=$3
    rm -f "$scratch/archive"
    buildah push --quiet "$id" "docker-archive:$scratch/archive:docker.io/$reference"
    buildah rmi "$id" >/dev/null
    mv "$scratch/archive" "$archive"
}

# Removes what is kept by such names, but for the last ones: other clones and branches have theirs.
prune() {
    local names=$1 last=$2
    find "$images/archives" -maxdepth 1 -name "$names" -printf '%T@ %p\n' | sort -rn |
        tail -n +$((last + 1)) | cut -d ' ' -f 2- | xargs -rd '\n' rm -rf --
}

tests/setup.sh images
prepare

own_arch=$(buildah info --format '{{.host.arch}}')
case $own_arch in
    amd64) other_arch=arm64 emulator=qemu-aarch64 ;;
    arm64) other_arch=amd64 emulator=qemu-x86_64 ;;
    *) fail "images are for amd64 and arm64; this machine is $own_arch" ;;
esac

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
revision=$(GIT_OPTIONAL_LOCKS=0 git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null) || revision=unknown
# The same sources make the same image, whenever it is built.
date=$(git log -1 --format=%ct 2>/dev/null) || date=0

if [ -n "${BUILD_IMAGE:-}" ]; then
    build_image=$BUILD_IMAGE
    options=()
else
    build_image=localhost/sfunnel-build:$(tests/images/base.sh build --name)
    base "$build_image" build
    options=(--pull-never)
fi
mapfile -t -O "${#options[@]}" options < <(network)

if [ -n "${DEBIAN_IMAGE:-}" ]; then
    debian_image=$DEBIAN_IMAGE
    debian_options=()
else
    debian_image=localhost/sfunnel-debian:$(tests/images/base.sh debian --name)
    base "$debian_image" debian
    debian_options=(--pull-never)
fi
mapfile -t -O "${#debian_options[@]}" debian_options < <(network)

# All that the images are made from, by content. A dirty tree and the commit of it may be the same, but
# for their labels.
mapfile -t context < <(sed -n 's/^!//p' .dockerignore)
source=$(
    {
        printf '%s\n' "$build_image" "$version" "$revision" "$date"
        find "${context[@]}" tests/images.sh -type f -print0 | sort -z | xargs -0 sha256sum
    } | sha256sum
)

# One of our programs, as an archive.
build_program() {
    local name=$1 arch=$2 file=$3 user=$4 archive=$5 id
    # Debian 12 has a buildah that does not set BUILDPLATFORM, as Docker does.
    id=$(build "$name-$arch" "${options[@]}" --platform "linux/$arch" --file "$file" --timestamp "$date" \
        --build-arg BUILDPLATFORM="linux/$own_arch" --build-arg BUILD_IMAGE="$build_image" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" .)
    ! grep 'setup: apt-get' "$out/$name-$arch.log" >&2 || [ -n "${BUILD_IMAGE:-}" ] ||
        fail "$name: tests/images/base.sh lacks packages that tests/setup.sh installs"
    check "$id" "$arch" "sfunnel-$name" "$user"
    archive "$id" "sfunnel/$name:$version" "$archive"
}

# Builds an image of Debian's packages from the Dockerfile in a folder, and prints its id.
build_packages() {
    local name=$1 folder=$2
    tests/images/fetching.sh >"$scratch/fetching"
    build "$name" "${debian_options[@]}" --build-arg DEBIAN_IMAGE="$debian_image" \
        --volume "$scratch/fetching:/etc/apt/apt.conf.d/99fetching:ro" "$folder"
}

# Prints where something of Debian's packages is kept. Their versions are the base's release's: the same
# for a month, so that security fixes come.
kept() {
    local name=$1 folder=$2 hash
    hash=$( { printf '%s\n' "$debian_image" "$(date +%Y-%m)"; cat "$folder/Dockerfile"; } | sha256sum)
    printf '%s' "$images/archives/$name-${hash:0:16}"
}

# An image of Debian's packages, as an archive.
packaged_image() {
    local name=$1 folder=$2 version=$3 archive id
    archive=$(kept "$name" "$folder").tar
    if [ ! -s "$archive" ]; then
        id=$(build_packages "$name" "$folder")
        archive "$id" "sfunnel/$name:$version" "$archive"
    fi
    touch "$archive"
    prune "$name-*.tar" 4
    ln -sfn "$archive" "$out/$name.tar"
}

# A root file system of Debian's packages, as a folder.
packaged_folder() {
    local name=$1 folder=$2 root id container
    root=$(kept "$name" "$folder")
    if [ ! -d "$root" ]; then
        id=$(build_packages "$name" "$folder")
        container=$(buildah from --pull-never "$id")
        rm -rf "$root.new"
        cp -a "$(buildah mount "$container")" "$root.new"
        buildah rm "$container" >/dev/null
        buildah rmi "$id" >/dev/null
        mv "$root.new" "$root"
    fi
    touch "$root"
    prune "$name-*" 4
    ln -sfn "$root" "$out/$name"
}

too_large=()
# One image: its architecture, its Dockerfile, its user, and its limit in megabytes.
image() {
    local name=$1 arch=$2 file=$3 user=$4 limit=$5 hash archive size start=$SECONDS how result
    hash=$( { printf '%s\n' "$source" "$arch"; cat "$file"; } | sha256sum)
    archive=$images/archives/$name-${hash:0:16}.tar
    if [ -s "$archive" ]; then
        how=unchanged
        touch "$archive"
    else
        build_program "$name" "$arch" "$file" "$user" "$archive"
        how="$((SECONDS - start)) s"
    fi
    prune "$name-*.tar" 16
    result=$out/$name.tar
    [ "$arch" = "$own_arch" ] || result=$out/$name-$arch.tar
    cp "$archive" "$result.new"
    mv "$result.new" "$result"
    size=$(stat -c %s "$archive")
    table+=$(printf '%-24s %-5s %6s MB of %2s MB   %s' \
        "sfunnel/$name:$version" "$arch" "$(awk "BEGIN { printf \"%.2f\", $size / 1000000 }")" "$limit" "$how")$'\n'
    [ "$size" -le $((limit * 1000000)) ] || too_large+=("$name has $size bytes for $arch")
}

table=
for arch in "$own_arch" "$other_arch"; do
    image webhook "$arch" Dockerfile.webhook 65532:65532 12
    image loader "$arch" Dockerfile.loader 0:0 4
    image example "$arch" deploy/examples/echo/Dockerfile 65532:65532 3
done
packaged_image nfacctd deploy/use-cases/nfacctd/collector 1.7.7
packaged_folder router tests/images/router
printf '%s' "$table"
[ ${#too_large[@]} -eq 0 ] || fail "more than the limit: ${too_large[*]}"
