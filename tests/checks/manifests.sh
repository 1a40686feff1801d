#!/usr/bin/env bash
# What deploy/ becomes.
#
#   tests/checks/manifests.sh render    deploy/install.yaml, and the alerts as Prometheus' operator wants them
#   tests/checks/manifests.sh check     every object against its schema, the installation against kube-score,
#                                       alerts and dashboard against Prometheus, and the alerts against tests
#
# The schemas are made of files in the Go modules of Kubernetes, cert-manager and Prometheus' operator, whose
# versions and checksums are pinned beside this script and in ../cluster.
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

    cat >"$scratch/prometheus-rule.yaml" <<'END'
# Made of ../alerts.yaml by `make manifests`. Change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sfunnel-webhook
  namespace: sfunnel-system
  labels:
    app.kubernetes.io/name: sfunnel
    app.kubernetes.io/component: webhook
spec:
END
    sed -e '/^#/d' -e 's/^./  &/' "$deploy/monitoring/alerts.yaml" >>"$scratch/prometheus-rule.yaml"
    mv "$scratch/prometheus-rule.yaml" "$deploy/monitoring/operator/prometheus-rule.yaml"
}

# The folder of a module's files.
module() { (cd "$here/$1" && go mod download -json "$2") | jq -er .Dir; }

schemas() {
    local kubernetes cert_manager operator crd file schema
    kubernetes=$(module ../cluster/kubernetes k8s.io/kubernetes)
    cert_manager=$(module cert-manager github.com/cert-manager/cert-manager)
    operator=$(module prometheus-operator github.com/prometheus-operator/prometheus-operator)
    {
        jq -rf "$here/schemas.jq" "$kubernetes/api/openapi-spec/swagger.json"
        for crd in "$cert_manager"/deploy/crds/cert-manager.io_{certificates,issuers}.yaml \
            "$operator"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml
        do
            yq -rf "$here/schemas.jq" "$crd"
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
    for folder in "$deploy"/examples/*/kustomization.yaml "$deploy"/use-cases/*/*/kustomization.yaml; do
        folder=$(dirname "$folder")
        name=${folder#"$deploy/"}
        "$kubectl" kustomize "$folder" >"$scratch/rendered/${name//\//-}.yaml"
    done
    "$kubectl" kustomize "$deploy/monitoring/operator" >"$scratch/rendered/monitoring.yaml"
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
    monitoring "$programs/promtool"
}

# Alerts and dashboard, as Prometheus understands them.
monitoring() {
    local promtool=$1
    "$promtool" check rules --lint=all --lint-fatal "$deploy/monitoring/alerts.yaml" >&2
    "$promtool" test rules "$here/prometheus/alerts.yaml" >&2
    # The queries of a dashboard are checked as rules, with an interval where Grafana would put one.
    jq '[.. | .expr? // empty | gsub("\\$__rate_interval"; "5m")]
        | {groups: [{name: "dashboard", rules: to_entries | map({record: "panel:\(.key)", expr: .value})}]}' \
        "$deploy/monitoring/dashboard.json" >"$scratch/dashboard.json"
    "$promtool" check rules "$scratch/dashboard.json" >&2
}

case ${1:-} in
    render) render ;;
    check) check ;;
    *) fail "unknown: ${1:-}; render or check" ;;
esac
