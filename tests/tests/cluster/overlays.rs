//! What else `deploy/` offers, on the cluster.

use serde_json::json;

use crate::lab::{Lab, SYSTEM, annotated_pod, in_both_modes, loader, repository};

in_both_modes! { on_gke_the_loader_is_privileged }

fn on_gke_the_loader_is_privileged(lab: &Lab) {
    lab.install();
    let overlay = repository("deploy/overlays/gke");
    lab.kubectl_with("apply", "-k", &overlay);
    lab.rolled_out(SYSTEM, "deployment/sfunnel-webhook");
    let namespace = lab.labelled("gke");
    // A replica of before may be asked until it has drained.
    let (pods, _) = lab.wait_for("a pod of a new replica", || {
        lab.apply(&annotated_pod(namespace.name(), "pod"));
        let pods = namespace.ready("app=pod", 1);
        let privileged = loader(&pods[0])?["securityContext"]["privileged"] == json!(true);
        if !privileged {
            lab.kubectl(&format!("-n {} delete pod pod --now", namespace.name()));
        }
        privileged.then_some(pods)
    });
    let state = &pods[0]["status"]["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["reason"], "Completed");
    lab.kubectl_with("delete", "-k", &overlay);
}
