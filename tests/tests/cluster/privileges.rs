//! What injected pods and the webhook itself may do.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::lab::{Lab, SYSTEM, annotated_pod, in_both_modes, loader};

in_both_modes! {
    injected_pods_get_two_capabilities_for_a_moment
    the_webhook_may_read_and_write_its_own_objects_alone
    the_webhook_runs_as_nobody
}

fn injected_pods_get_two_capabilities_for_a_moment(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("privileges");
    lab.apply(&annotated_pod(namespace.name(), "pod"));
    let pods = namespace.ready("app=pod", 1);
    let pod = &pods[0];

    let loader = loader(pod).expect("the pod has the loader");
    assert_eq!(
        loader["securityContext"]["capabilities"],
        json!({"drop": ["ALL"], "add": ["BPF", "NET_ADMIN"]})
    );
    assert_eq!(loader["securityContext"]["privileged"], json!(false));
    assert_eq!(loader["securityContext"]["allowPrivilegeEscalation"], json!(false));
    let state = &pod["status"]["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["reason"], "Completed");
    // No other container got anything, and no volume of the node's came in.
    for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
        assert_eq!(container["securityContext"], Value::Null, "{container}");
    }
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        assert_eq!(volume["hostPath"], Value::Null, "{volume}");
    }
    let mounts = loader["volumeMounts"].as_array().expect("the loader's mounts");
    assert!(mounts.iter().all(|mount| mount["name"] == "sfunnel-no-token"), "{mounts:?}");
}

fn the_webhook_may_read_and_write_its_own_objects_alone(lab: &Lab) {
    lab.install();
    let user = format!("system:serviceaccount:{SYSTEM}:sfunnel-webhook");
    let rights = |namespace: &str| -> BTreeSet<String> {
        let table =
            lab.kubectl(&format!("auth can-i --list --no-headers --as {user} -n {namespace}"));
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    // What every service account may do: look at itself, and at what kinds of objects there are.
    let everybody = {
        let table = lab.kubectl(
            "auth can-i --list --no-headers -n default --as system:serviceaccount:default:default",
        );
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<BTreeSet<_>>()
    };
    let own = |namespace: &str| -> Vec<String> {
        rights(namespace).difference(&everybody).cloned().collect()
    };
    let configurations = ["mutating", "validating"].map(|kind| {
        format!(
            "{kind}webhookconfigurations.admissionregistration.k8s.io [] [sfunnel-webhook] \
             [get list watch patch]"
        )
    });
    assert_eq!(own("default"), configurations);
    let secret = "secrets [] [sfunnel-webhook-ca] [get list watch create patch]".to_owned();
    let [mutating, validating] = configurations;
    assert_eq!(own(SYSTEM), [mutating, secret, validating]);
    for other in [
        "get secret/other",
        "create secret/other",
        "list secrets",
        "create secrets",
        "create validatingwebhookconfigurations/sfunnel-webhook",
        "patch validatingwebhookconfigurations/other",
    ] {
        let answer = lab.kubectl_fails(&format!("auth can-i {other} -n {SYSTEM} --as {user}"));
        assert!(answer.lines().any(|line| line == "no"), "{other}: {answer}");
    }
}

fn the_webhook_runs_as_nobody(lab: &Lab) {
    lab.install();
    let replicas = lab.replicas();
    assert_eq!(replicas.len(), 2);
    for pod in replicas {
        let container = &pod["spec"]["containers"][0];
        let context = &container["securityContext"];
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{context}");
        assert_eq!(context["readOnlyRootFilesystem"], json!(true));
        assert_eq!(context["allowPrivilegeEscalation"], json!(false));
    }
    // What the kernel says of the processes, not what the manifest does.
    let processes = processes(lab, "sfunnel-webhook");
    assert_eq!(processes.len(), 2, "one of each replica");
    for status in processes {
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().skip(1)
        };
        assert!(field("Uid:").all(|id| id == "65532"), "{status}");
        assert!(field("Gid:").all(|id| id == "65532"), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert!(field(set).all(|bits| bits.bytes().all(|digit| digit == b'0')), "{status}");
        }
        assert!(field("NoNewPrivs:").all(|bit| bit == "1"), "{status}");
        // Filtered by seccomp.
        assert!(field("Seccomp:").all(|mode| mode == "2"), "{status}");
    }
}

/// /proc/PID/status of those processes in the cluster's containers that have this name.
fn processes(lab: &Lab, name: &str) -> Vec<String> {
    let cluster = lab.cluster().folder().path().file_name().expect("a folder has a name");
    let cluster = cluster.to_str().expect("made by us");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        // Some of them end meanwhile, and some entries are no processes.
        let read =
            |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let is_in_it = || read("cgroup").split(['/', '\n']).any(|part| part == cluster);
        if read("comm").trim_end() == name && is_in_it() {
            found.push(read("status"));
        }
    }
    found
}
