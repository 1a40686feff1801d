//! Who is sent to the webhook, and who isn't: the API server's own count tells.

use serde_json::json;

use crate::lab::{Lab, annotated_pod, in_both_modes, opted_out_pod, plain_pod};

in_both_modes! { nobody_but_annotated_pods_of_labelled_namespaces }

fn nobody_but_annotated_pods_of_labelled_namespaces(lab: &Lab) {
    lab.install();
    let labelled = lab.labelled("called-labelled");
    let unlabelled = lab.unlabelled("called-unlabelled");
    // Somebody may label them by mistake.
    let system = ["kube-system", "sfunnel-system"];
    for namespace in system {
        lab.kubectl(&format!("label namespace {namespace} {} --overwrite", crate::lab::LABEL));
    }

    let before = lab.calls();
    lab.apply(&annotated_pod(unlabelled.name(), "annotated"));
    lab.apply(&plain_pod(labelled.name(), "plain"));
    lab.apply(&opted_out_pod(labelled.name(), "opted-out"));
    let mut other = plain_pod(labelled.name(), "other-annotations");
    other["metadata"]["annotations"] = json!({"example.com/sfunnel.io": "true"});
    lab.apply(&other);
    let mut pods = Vec::new();
    for namespace in system {
        let mut pod = annotated_pod(namespace, "annotated");
        // Our own namespace demands it.
        pod["spec"]["securityContext"] = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        });
        pod["spec"]["containers"][0]["securityContext"] = json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        });
        lab.apply(&pod);
        pods.push(format!("-n {namespace} pod/annotated"));
    }
    assert_eq!(lab.calls(), before, "the API server has called the webhook");

    lab.apply(&annotated_pod(labelled.name(), "annotated"));
    assert_eq!(lab.calls(), before + 1, "the API server has not called the webhook");

    for pod in pods {
        lab.kubectl(&format!("delete {pod} --now"));
    }
    for namespace in system {
        lab.kubectl(&format!("label namespace {namespace} sfunnel.io/inject-"));
    }
}
