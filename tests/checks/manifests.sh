#!/usr/bin/env bash
# What deploy/ becomes.
#
#   tests/checks/manifests.sh render    deploy/install.yaml
#   tests/checks/manifests.sh check     every object against the schemas of Kubernetes and cert-manager,
#                                       and the installation against kube-score
#
# The schemas are made of files in the Go modules of Kubernetes and cert-manager, whose versions and
# checksums are pinned beside this script and in ../cluster.
#
#   KUBECTL=kubectl    takes this one, not the one that ../cluster/programs.sh builds
set -euo pipefail

say() { printf 'manifests: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deploy=$here/../../deploy
# shellcheck source=tests/go.sh
. "$here/../go.sh"
kubectl=${KUBECTL:-$("$here/../cluster/programs.sh")/kubectl}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

render() {
    {
        echo '# Made of deploy/base by `make manifests`. Change it there.'
        "$kubectl" kustomize "$deploy"
    } >"$scratch/install.yaml"
    mv "$scratch/install.yaml" "$deploy/install.yaml"
}

# The folder of a module's files.
module() { (cd "$here/$1" && go mod download -json "$2") | jq -er .Dir; }

schemas() {
    local kubernetes cert_manager crd file schema
    kubernetes=$(module ../cluster/kubernetes k8s.io/kubernetes)
    cert_manager=$(module cert-manager github.com/cert-manager/cert-manager)
    {
        jq -rf "$here/schemas.jq" "$kubernetes/api/openapi-spec/swagger.json"
        for crd in certificates issuers; do
            yq -rf "$here/schemas.jq" "$cert_manager/deploy/crds/cert-manager.io_$crd.yaml"
        done
    } | while IFS=$'\t' read -r file schema; do
        printf '%s' "$schema" >"$1/$file"
    done
}

# Reasons why kube-score's demands are not met:
hardening=(
    # A throttled webhook makes every annotated pod wait; its request keeps its share of the CPU.
    --ignore-container-cpu-limit
    # Tags are versions, so the node's image is the right one, and a registry that is down stops nobody.
    --ignore-test container-image-pull-policy
    # The root file system is read-only. There is only the log, which the kubelet rotates; a limit on
    # it would have all replicas evicted for what a noisy client makes them write.
    --ignore-test container-ephemeral-storage-request-and-limit
    --enable-optional-test container-seccomp-profile
    --enable-optional-test container-ports-check
)

check() {
    local programs folder name installation=() version
    command -v yq >/dev/null || fail 'jq or yq is missing: tests/setup.sh checks installs them'
    use_go
    programs=$("$here/programs.sh")
    mkdir "$scratch/schemas" "$scratch/rendered"
    schemas "$scratch/schemas"

    for folder in . overlays/cert-manager overlays/gke; do
        name=$scratch/rendered/$(basename "$(realpath "$deploy/$folder")").yaml
        "$kubectl" kustomize "$deploy/$folder" >"$name"
        installation+=("$name")
    done
    for folder in "$deploy"/examples/*/kustomization.yaml; do
        folder=$(dirname "$folder")
        name=${folder#"$deploy/"}
        "$kubectl" kustomize "$folder" >"$scratch/rendered/${name//\//-}.yaml"
    done
    cp "$deploy/install.yaml" "$scratch/rendered/install.yaml"

    "$programs/kubeconform" -strict -summary -n "$(nproc)" \
        -schema-location "$scratch/schemas/{{.ResourceKind}}{{.KindSuffix}}.json" "$scratch/rendered"
    version=$(cd "$here/../cluster/kubernetes" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
    for name in "${installation[@]}"; do
        # Only what it objects to.
        "$programs/kube-score" score --output-format ci --kubernetes-version "${version%.*}" \
            "${hardening[@]}" "$name" >"$scratch/score" ||
            fail "$(basename "$name"), judged by kube-score:"$'\n'"$(grep -v '^\[\(OK\|SKIPPED\)\]' "$scratch/score")"
    done
    say "kube-score objects to nothing in ${installation[*]##*/}"
}

case ${1:-} in
    render) render ;;
    check) check ;;
    *) fail "unknown: ${1:-}; render or check" ;;
esac
