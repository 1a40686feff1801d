//! Clients that are pods, through a ClusterIP.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, in_both_modes, loader, repository};

in_both_modes! {
    by_chance_without_annotations
    encapsulated
    in_place
    udp_through_tcp
}

/// Clients, each a pod of its own. All of them together by chance: once in half a million times.
const CLIENTS: usize = 12;

fn by_chance_without_annotations(lab: &Lab) {
    let [together] = together(lab, "before", false, [3]);
    // Eleven or more would be a chance of one in twenty thousand.
    assert!(together < 11, "{together} of {CLIENTS}");
}

fn encapsulated(lab: &Lab) {
    assert_eq!(together(lab, "encapsulated", true, [3, 12]), [CLIENTS; 2]);
}

fn in_place(lab: &Lab) {
    assert_eq!(together(lab, "after", true, [12]), [CLIENTS]);
}

fn udp_through_tcp(lab: &Lab) {
    assert_eq!(together(lab, "udp", true, [3]), [CLIENTS]);
}

/// How many clients find all ports on one pod, of so many servers each time.
fn together<const N: usize>(
    lab: &Lab,
    example: &str,
    injected: bool,
    servers: [usize; N],
) -> [usize; N] {
    lab.install();
    let namespace = lab.labelled(&format!("inside-{example}"));
    let name = namespace.name();
    let folder = repository("deploy/examples").join(example);
    lab.kubectl_with(&format!("apply -n {name}"), "-k", &folder);
    servers.map(|servers| {
        // Clients that ask while there is one server alone stick to it with all their ports. New ones
        // have new addresses.
        lab.kubectl(&format!("-n {name} scale deployment client --replicas=0"));
        lab.kubectl(&format!("-n {name} scale deployment web --replicas={servers}"));
        namespace.ready("app=web", servers);
        namespace.ready("app=client", 0);
        lab.kubectl(&format!("-n {name} scale deployment client --replicas={CLIENTS}"));
        let clients = namespace.ready("app=client", CLIENTS);
        for pod in lab.list(&format!("pods -n {name}")) {
            assert_eq!(loader(&pod).is_some(), injected, "{pod}");
        }
        let verdicts = verdicts(lab, name, &clients);
        let count = verdicts.iter().filter(|tally| tally.starts_with("1 of 1 clients")).count();
        lab.report(format_args!(
            "pod to pod, {example:<14} {servers:>2} replicas: {count:>3} of {CLIENTS} clients"
        ));
        count
    })
}

/// The last line of each client's log, when all of them had an answer from every port.
fn verdicts(lab: &Lab, namespace: &str, clients: &[Value]) -> Vec<String> {
    let names: Vec<_> = clients.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    let (verdicts, _) = lab.wait_for("an answer to every client", || {
        let logs = names.iter().map(|pod| format!("-n {namespace} logs {pod} --tail=1"));
        let verdicts: Vec<_> = logs.map(|line| lab.kubectl(&line)).collect();
        let all = verdicts.iter().all(|tally| tally.ends_with("; 0: not all ports answered\n"));
        if !all {
            eprintln!("{namespace}: {verdicts:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        all.then_some(verdicts)
    });
    verdicts
}
