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
cache=${SFUNNEL_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/sfunnel}

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

version=${KUBERNETES_VERSION:-$(pinned kubernetes k8s.io/kubernetes)}
version=${version#v}
[[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] || fail "KUBERNETES_VERSION=$version is not like 1.36.3"
etcd_version=$(pinned kubernetes go.etcd.io/etcd/server/v3)
containerd_version=$(pinned containerd github.com/containerd/containerd/v2)
cni_version=$(pinned cni github.com/containernetworking/plugins)
folder=$cache/cluster-kubernetes-$version-etcd-$etcd_version-containerd-$containerd_version-cni-$cni_version

if [ -z "$(missing "$folder" "${kubernetes[@]}" "${containerd[@]}" "${cni[@]}")" ]; then
    printf '%s\n' "$folder"
    exit
fi

. "$here/../go.sh"
use_go

# A build that breaks off leaves nothing under the final name.
mkdir -p "$cache"
new=$(mktemp -d "$folder.new.XXXXXX")
trap 'rm -rf "$new"' EXIT

export CGO_ENABLED=0

say "building Kubernetes $version and etcd $etcd_version (five to ten minutes on two cores)"
modules=$here/kubernetes
if [ "$version" != "$(pinned kubernetes k8s.io/kubernetes)" ]; then
    modules=$new/modules
    mkdir "$modules"
    sed "s|v1\.36\.[0-9]*$|v$version|; s|v0\.36\.[0-9]*$|v0.${version#1.}|" "$here/kubernetes/go.mod" >"$modules/go.mod"
    (cd "$modules" && go mod tidy) || fail "the modules of Kubernetes $version do not fit together; see what go says above"
fi
(
    cd "$modules"
    # Without its version the kubelet would call itself v0.0.0.
    flags="-s -w"
    for variable in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags="$flags -X $variable.gitVersion=v$version -X $variable.gitMajor=1 -X $variable.gitMinor=$(cut -d. -f2 <<<"$version")"
    done
    for program in "${kubernetes[@]}"; do
        case $program in
            etcd) package=go.etcd.io/etcd/server/v3 ;;
            *) package=k8s.io/kubernetes/cmd/$program ;;
        esac
        go build -trimpath -ldflags "$flags" -o "$new/$program" "$package"
    done
) || fail "Kubernetes $version could not be built; see what go says above"
rm -rf "$new/modules"

say "building containerd $containerd_version"
(
    cd "$here/containerd"
    for program in "${containerd[@]}"; do
        go build -trimpath -ldflags '-s -w' -o "$new/$program" "github.com/containerd/containerd/v2/cmd/$program"
    done
) || fail "containerd $containerd_version could not be built; see what go says above"

say "building the CNI plugins $cni_version"
(
    cd "$here/cni"
    for program in "${cni[@]}"; do
        package=$(go list -f '{{.ImportPath}}' tool | grep "/$program\$")
        go build -trimpath -ldflags '-s -w' -o "$new/$program" "$package"
    done
) || fail "the CNI plugins $cni_version could not be built; see what go says above"

chmod 755 "$new"
rm -rf "$folder"
mv "$new" "$folder"
trap - EXIT
printf '%s\n' "$folder"
