# To be sourced: use_go puts a Go compiler on the path that is new enough for the go.mod files under
# tests/. The shell that sources this has `say`, `fail` and `cache`.

go_version=1.26.0

go_is_new_enough() {
    local found
    # GOTOOLCHAIN=local: what is here, not what it would fetch.
    found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "go$go_version" "${found%% *}" | sort -V | head -n 1)" = "go$go_version" ]
}

# Without `packages` (a function of setup.sh) it installs nothing from Debian, and fails where it should.
use_go() {
    local kept=$cache/go-$go_version
    ! go_is_new_enough || return 0
    if [ ! -x "$kept/bin/go" ]; then
        command -v go >/dev/null || {
            [ "$(type -t packages)" = function ] || fail 'Go is missing: tests/setup.sh cluster installs it'
            packages golang-go ca-certificates
        }
        # Every Go compiler is also a module, checked against the public checksum database. From 1.21
        # on, go would fetch it by itself; Debian 12 has 1.19.
        say "go mod download golang.org/toolchain, Go $go_version, into $kept"
        local new platform module
        mkdir -p "$cache"
        new=$(mktemp -d "$kept.new.XXXXXX")
        platform=$(go env GOOS)-$(go env GOARCH)
        module=$(cd "$new" && GOTOOLCHAIN=local GOFLAGS=-modcacherw GOPATH=$new/path \
            go mod download -json "golang.org/toolchain@v0.0.1-go$go_version.$platform") ||
            fail "Go $go_version can't be had: $module"
        mv "$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\?$/\1/p' <<<"$module")" "$new/go"
        # Modules have no executable files.
        chmod +x "$new"/go/bin/* "$new/go/pkg/tool/${platform/-/_}"/*
        rm -rf "$kept"
        mv "$new/go" "$kept"
        rm -rf "$new"
    fi
    export PATH=$kept/bin:$PATH GOTOOLCHAIN=local
    unset GOROOT
    go_is_new_enough || fail "$kept/bin/go does not run; remove $kept and try again"
}
