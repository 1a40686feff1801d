//! Every kind of workload, and what its author is told.

use serde_json::{Value, json};

use crate::lab::{
    LABEL, Lab, RULESET, annotated_pod, in_both_modes, is_ready, loader, server_spec,
};

in_both_modes! {
    every_kind_of_workload_is_injected
    a_dry_run_shows_the_loader
    a_broken_ruleset_is_shown_where_people_look
}

/// A pod template whose pods end by themselves after a moment.
fn short(app: &str) -> Value {
    let mut template = template(app);
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["containers"][0]["args"] = json!(["--help"]);
    template
}

fn template(app: &str) -> Value {
    json!({
        "metadata": {
            "labels": {"app": app},
            "annotations": {"sfunnel.io/ruleset": RULESET},
        },
        "spec": server_spec(),
    })
}

fn every_kind_of_workload_is_injected(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("workloads");
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let kinds = [
        (
            "batch/v1",
            "CronJob",
            json!({
                "schedule": "@every 2s",
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": {"template": short("cronjob")}},
            }),
        ),
        ("batch/v1", "Job", json!({"template": short("job")})),
        (
            "apps/v1",
            "Deployment",
            json!({
                "replicas": 2, "selector": selector("deployment"), "template": template("deployment"),
            }),
        ),
        (
            "apps/v1",
            "ReplicaSet",
            json!({
                "replicas": 2, "selector": selector("replicaset"), "template": template("replicaset"),
            }),
        ),
        (
            "apps/v1",
            "DaemonSet",
            json!({
                "selector": selector("daemonset"), "template": template("daemonset"),
            }),
        ),
        (
            "apps/v1",
            "StatefulSet",
            json!({
                "replicas": 2, "serviceName": "none",
                "selector": selector("statefulset"), "template": template("statefulset"),
            }),
        ),
        (
            "v1",
            "ReplicationController",
            json!({
                "replicas": 1, "selector": {"app": "replicationcontroller"},
                "template": template("replicationcontroller"),
            }),
        ),
    ];
    for (version, kind, spec) in &kinds {
        lab.apply(&json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": kind.to_lowercase(), "namespace": namespace.name()},
            "spec": spec,
        }));
    }
    lab.apply(&annotated_pod(namespace.name(), "pod"));
    // A pod that knows its node, and one that has no name yet.
    let mut placed = annotated_pod(namespace.name(), "placed");
    placed["spec"]["nodeName"] = json!(tests::cluster::NODE_NAME);
    lab.apply(&placed);
    let mut nameless = annotated_pod(namespace.name(), "nameless");
    nameless["metadata"].as_object_mut().expect("metadata").remove("name");
    nameless["metadata"]["generateName"] = json!("nameless-");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), nameless.to_string()).expect("a file");
    lab.kubectl_with("create", "-f", file.path());

    let expected = [
        ("cronjob", 1),
        ("job", 1),
        ("deployment", 2),
        ("replicaset", 2),
        ("daemonset", 1),
        ("statefulset", 2),
        ("replicationcontroller", 1),
        ("pod", 1),
        ("placed", 1),
        ("nameless", 1),
    ];
    for (app, count) in expected {
        let line = format!("pods -n {} -l app={app}", namespace.name());
        let (pods, _) = lab.wait_for(&format!("{count} pods of {app}"), || {
            let pods = lab.list(&line);
            let done = |pod: &&Value| is_ready(pod) || pod["status"]["phase"] == "Succeeded";
            (pods.iter().filter(done).count() >= count).then_some(pods)
        });
        for pod in pods {
            let loader = loader(&pod).unwrap_or_else(|| panic!("{app}: no loader in {pod}"));
            assert_eq!(loader["image"], "sfunnel/loader:0.1.0", "{app}");
            let status = &pod["status"]["initContainerStatuses"][0]["state"]["terminated"];
            // The newest pod of the CronJob may not have got so far.
            if app != "cronjob" || pod["status"]["phase"] == "Succeeded" {
                assert_eq!(status["reason"], "Completed", "{app}: {status}");
            }
        }
    }
}

fn a_dry_run_shows_the_loader(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("dry-run");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), annotated_pod(namespace.name(), "pod").to_string())
        .expect("a file");
    let output = lab.kubectl_with("apply --dry-run=server -o json", "-f", file.path());
    let pod: Value = serde_json::from_str(&output).expect("kubectl's JSON");
    assert_eq!(loader(&pod).expect("the loader")["image"], "sfunnel/loader:0.1.0");
    assert_eq!(lab.list(&format!("pods -n {}", namespace.name())), [] as [Value; 0]);
}

fn a_broken_ruleset_is_shown_where_people_look(lab: &Lab) {
    lab.install();
    let namespace = lab.unlabelled("broken");
    let mut template = template("web");
    template["metadata"]["annotations"]["sfunnel.io/ruleset"] =
        json!("ip tcp port 80 sport 540 actions unfunnel tcp");
    lab.apply(&json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace.name()},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }));
    // Both would be refused themselves, had the namespace its label already.
    lab.wait_for("the ReplicaSet", || {
        (!lab.list(&format!("replicasets -n {}", namespace.name())).is_empty()).then_some(())
    });
    lab.kubectl(&format!("label namespace {} {LABEL}", namespace.name()));
    lab.kubectl(&format!("-n {} scale deployment web --replicas=1", namespace.name()));

    let describe = format!("-n {} describe replicaset -l app=web", namespace.name());
    let (text, _) = lab.wait_for("the event of the ReplicaSet", || {
        let text = lab.kubectl(&describe);
        text.contains("FailedCreate").then_some(text)
    });
    for part in [
        "admission webhook \"inject.sfunnel.io\" denied the request",
        "unknown match `port`; did you mean `dport`?",
        "at line 1, column 8",
        "| ip tcp port 80 sport 540 actions unfunnel tcp",
        "|        ^^^^",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert_eq!(lab.list(&format!("pods -n {}", namespace.name())), [] as [Value; 0]);
    // The Deployment itself says that something is wrong.
    let (_, _) = lab.wait_for("the condition of the Deployment", || {
        let deployment = lab.get(&format!("deployment web -n {}", namespace.name()));
        let conditions = deployment["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")
    });
}
