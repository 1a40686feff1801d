#!/usr/bin/env bash
# Makes sure that the programs of a Kubernetes node are there, and prints the folder that holds them.
#
# They are Go programs, built from their modules with the versions that the go.mod files beside this
# script pin, and kept in $SFUNNEL_CACHE (by default ~/.cache/sfunnel) under these versions.
#
#   KUBERNETES_VERSION=1.35.4       another Kubernetes than the pinned one; its checksums are not pinned
#   SFUNNEL_CLUSTER_ASSETS=folder   takes ready programs from there, and builds nothing
set -euo pipefail

say() { printf 'cluster: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
. "$here/../go.sh"

kubernetes=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet etcd)
containerd=(containerd containerd-shim-runc-v2 ctr)
cni=(bridge host-local loopback)

# Prints those of the named programs that the folder does not hold.
missing() {
    local folder=$1 program
    shift
    for program in "$@"; do
        [ -x "$folder/$program" ] || printf ' %s' "$program"
    done
}

if [ -n "${SFUNNEL_CLUSTER_ASSETS:-}" ]; then
    lacking=$(missing "$SFUNNEL_CLUSTER_ASSETS" "${kubernetes[@]}" "${containerd[@]}" "${cni[@]}")
    [ -z "$lacking" ] || fail "SFUNNEL_CLUSTER_ASSETS=$SFUNNEL_CLUSTER_ASSETS lacks:$lacking"
    (cd "$SFUNNEL_CLUSTER_ASSETS" && pwd)
    exit
fi

# The version of a module that a go.mod requires, without the v.
pinned() { sed -n "s|^\(require\)\?[[:space:]]*$2 v\([^ ]*\).*|\2|p" "$here/$1/go.mod" | head -n 1; }

pinned_version=$(pinned kubernetes k8s.io/kubernetes)
version=${KUBERNETES_VERSION:-$pinned_version}
version=${version#v}
[[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] || fail "KUBERNETES_VERSION=$version is not like $pinned_version"
etcd_version=$(pinned kubernetes go.etcd.io/etcd/server/v3)
containerd_version=$(pinned containerd github.com/containerd/containerd/v2)
cni_version=$(pinned cni github.com/containernetworking/plugins)
folder=$cache/cluster-kubernetes-$version-etcd-$etcd_version-containerd-$containerd_version-cni-$cni_version

# Modules for another Kubernetes than the pinned one. Its own modules have its version, as v0; which others
# it needs, and which of its own there are, its own go.mod says.
other_kubernetes() {
    local modules=$1
    sed -E -e "s#([[:space:]]k8s\.io/[^ ]+) v([01])\.${pinned_version#1.}( |\$)#\1 v\2.${version#1.}\3#" \
        -e '\#// indirect$# { \#[[:space:]](k8s\.io/kubernetes|go\.etcd\.io/etcd/server/v3) #!d }' \
        "$here/kubernetes/go.mod" >"$modules/go.mod"
    go -C "$modules" mod tidy ||
        fail "the modules of Kubernetes $version do not fit together; see what go says above"
}

# `build MODULES OUTPUT PACKAGE FLAGS` builds one program, with these flags for the linker.
build() {
    go -C "$1" build -trimpath -ldflags "-s -w $4" -o "$2" "$3" ||
        fail "$3 could not be built; see what go says above"
}

build_kubernetes() {
    local new=$1 modules=$here/kubernetes found flags='' variable program package
    if [ "$version" != "$pinned_version" ]; then
        modules=$new/modules
        mkdir "$modules"
        other_kubernetes "$modules"
    fi
    found=$(go -C "$modules" list -m -f '{{.Version}}' k8s.io/kubernetes)
    [ "$found" = "v$version" ] || fail "the modules are those of Kubernetes $found, not of v$version"
    # Without its version the kubelet would call itself v0.0.0.
    for variable in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $variable.gitVersion=v$version -X $variable.gitMajor=1"
        flags+=" -X $variable.gitMinor=$(cut -d. -f2 <<<"$version")"
    done
    for program in "${kubernetes[@]}"; do
        case $program in
            etcd) package=go.etcd.io/etcd/server/v3 ;;
            *) package=k8s.io/kubernetes/cmd/$program ;;
        esac
        build "$modules" "$new/$program" "$package" "$flags"
    done
    rm -rf "$new/modules"
}

build_all() {
    local new=$1 program package
    use_go
    export CGO_ENABLED=0
    say "building Kubernetes $version and etcd $etcd_version (five to ten minutes on two cores)"
    build_kubernetes "$new"
    say "building containerd $containerd_version"
    for program in "${containerd[@]}"; do
        build "$here/containerd" "$new/$program" "github.com/containerd/containerd/v2/cmd/$program" ''
    done
    say "building the CNI plugins $cni_version"
    for program in "${cni[@]}"; do
        package=$(go -C "$here/cni" list -f '{{.ImportPath}}' tool | grep "/$program\$")
        build "$here/cni" "$new/$program" "$package" ''
    done
}

make_once "$folder" build_all
lacking=$(missing "$folder" "${kubernetes[@]}" "${containerd[@]}" "${cni[@]}")
[ -z "$lacking" ] || fail "$folder lacks:$lacking; when no cluster runs, remove it and try again"
printf '%s\n' "$folder"
