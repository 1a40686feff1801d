# shellcheck shell=bash
# To be sourced by the scripts here, which have `say` and `fail`: the cache of what takes long to make,
# and the Go compiler, which may be such a thing.

# One path wherever scripts and their children go.
SFUNNEL_CACHE=$(realpath -m "${SFUNNEL_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/sfunnel}")
export SFUNNEL_CACHE
cache=$SFUNNEL_CACHE

# `make_once FOLDER COMMAND...` makes a folder of the cache, unless it is there: the command gets a new
# folder as its last argument, and fills it. All clones share the cache: one run makes the folder, and the
# others wait. What breaks off leaves nothing under the final name, and what has that name is never
# replaced, because a cluster may be running from it.
make_once() {
    local folder=$1
    shift
    [ ! -d "$folder" ] || return 0
    mkdir -p "$cache"
    (
        # What the command starts inherits the lock: where this shell is killed, others wait for that too.
        flock --nonblock 9 || { say "waiting for another run, which makes $folder"; flock 9; }
        [ ! -d "$folder" ] || exit 0
        new=$folder.new
        # That of a run that was killed.
        rm -rf "$new"
        trap 'rm -rf "$new"' EXIT
        mkdir "$new"
        "$@" "$new"
        mv --no-target-directory "$new" "$folder"
    ) 9>"$folder.lock"
}

# What the go.mod files under tests/ ask for.
go_version=1.26.0

go_is_new_enough() {
    local found
    # GOTOOLCHAIN=local: what is here, not what it would fetch.
    found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "go$go_version" "${found%% *}" | sort -V | head -n 1)" = "go$go_version" ]
}

# Every Go compiler is also a module, checked against the public checksum database. From 1.21 on, go would
# fetch it by itself; Debian 12 has 1.19.
fetch_go() {
    local new=$1 platform module
    say "go mod download golang.org/toolchain, Go $go_version, into $cache"
    platform=$(go env GOHOSTOS)-$(go env GOHOSTARCH)
    module=$(cd "$new" && GOTOOLCHAIN=local GOFLAGS=-modcacherw GOPATH=$new/path GOMODCACHE=$new/path \
        go mod download -json "golang.org/toolchain@v0.0.1-go$go_version.$platform") ||
        fail "Go $go_version can't be had: $module"
    mv "$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\?$/\1/p' <<<"$module")"/* "$new"
    rm -rf "$new/path"
    # Modules have no executable files.
    chmod +x "$new"/bin/* "$new/pkg/tool/${platform/-/_}"/*
}

# Puts a Go compiler on the path that is new enough. Without `packages` (a function of setup.sh) it
# installs nothing from Debian, and fails where it should.
use_go() {
    local kept=$cache/go-$go_version
    # The user's own settings are for other modules than these. None of these is in a repository of its
    # own, so there is no revision to stamp.
    export GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false'
    ! go_is_new_enough || return 0
    if [ ! -d "$kept" ] && ! command -v go >/dev/null; then
        [ "$(type -t packages)" = function ] || fail 'Go is missing: tests/setup.sh cluster installs it'
        packages golang-go ca-certificates
    fi
    make_once "$kept" fetch_go
    export PATH=$kept/bin:$PATH GOTOOLCHAIN=local
    unset GOROOT
    go_is_new_enough || fail "$kept/bin/go does not run; remove $kept and try again"
}
