//! Questions of any size.

use serde_json::{Value, json};

/// The review of a pod's creation, of `bytes` bytes or a few more. Both servers inject it.
pub fn review(bytes: usize) -> String {
    let containers = if bytes > 100_000 { 40 } else { 2 };
    let of_size = |variables| question(&pod(containers, variables)).to_string();
    let (none, one) = (of_size(0).len(), of_size(1).len());
    of_size(bytes.saturating_sub(none).div_ceil(one - none))
}

/// A pod with this many variables in each of this many containers.
fn pod(containers: usize, variables: usize) -> Value {
    let containers: Vec<_> = (0..containers).map(|number| container(number, variables)).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            // agnhost leaves alone what is called otherwise.
            "name": "webhook-to-be-mutated",
            "namespace": "shop",
            "labels": {"app.kubernetes.io/name": "web", "pod-template-hash": "6d4cf56db6"},
            "annotations": {
                "sfunnel.io/ruleset": "# What arrives disguised as port 80 is really for another port.\n\
                                       ip tcp dport 80 sport 540 actions unfunnel tcp\n",
                "sfunnel.io/egress-ruleset": "ip daddr 198.51.100.0/24 tcp sport 8080 actions \
                                              funnel tcp sport 80 dport 540\n",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "web-6d4cf56db6",
                "uid": "0b5c3e4e-6f0c-4a0e-9d3a-2f0f5b1f6a11",
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "serviceAccountName": "web",
            "containers": containers,
            "volumes": [{"name": "data", "emptyDir": {}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
            "terminationGracePeriodSeconds": 30,
        },
    })
}

fn container(number: usize, variables: usize) -> Value {
    let variable = |variable| {
        let name = format!("SHOP_BACKEND_SETTING_{variable:05}");
        json!({"name": name, "value": format!("https://backend.shop.svc/{number}/{variable:05}")})
    };
    json!({
        "name": format!("web-{number}"),
        "image": "registry.example/shop/web:1.0",
        "ports": [{"containerPort": 80}, {"containerPort": 8080}],
        "env": (0..variables).map(variable).collect::<Vec<_>>(),
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true},
    })
}

fn question(pod: &Value) -> Value {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": "webhook-to-be-mutated",
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}
