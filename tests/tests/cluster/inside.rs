//! Clients that are pods, through a ClusterIP.

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
    let together = together(lab, "before", false);
    println!("before: {together} of {CLIENTS}");
    // Eleven or more would be a chance of one in twenty thousand.
    assert!(together < 11, "{together} of {CLIENTS}");
}

fn encapsulated(lab: &Lab) {
    assert_eq!(together(lab, "encapsulated", true), CLIENTS);
}

fn in_place(lab: &Lab) {
    assert_eq!(together(lab, "after", true), CLIENTS);
}

fn udp_through_tcp(lab: &Lab) {
    assert_eq!(together(lab, "udp", true), CLIENTS);
}

/// How many clients find all ports on one pod.
fn together(lab: &Lab, example: &str, injected: bool) -> usize {
    lab.install();
    let namespace = lab.labelled(&format!("inside-{example}"));
    let name = namespace.name();
    let folder = repository("deploy/examples").join(example);
    lab.kubectl(&format!("apply -n {name} -k {}", folder.display()));
    // Clients that ask while there is one server alone stick to it with all their ports.
    lab.kubectl(&format!("-n {name} scale deployment client --replicas=0"));
    lab.rolled_out(name, "deployment/web");
    lab.kubectl(&format!("-n {name} scale deployment client --replicas={CLIENTS}"));
    let pods = namespace.ready("app=client", CLIENTS);
    for pod in lab.list(&format!("pods -n {name}")) {
        assert_eq!(loader(&pod).is_some(), injected, "{pod}");
    }
    let clients: Vec<&str> =
        pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    let (verdicts, _) = lab.wait_for("an answer to every client", || {
        let tallies =
            clients.iter().map(|pod| lab.kubectl(&format!("-n {name} logs {pod} --tail=1")));
        let verdicts: Vec<String> = tallies.collect();
        let all = verdicts.iter().all(|tally| tally.ends_with("; 0: not all ports answered\n"));
        if !all {
            eprintln!("{example}: {verdicts:?}");
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        all.then_some(verdicts)
    });
    verdicts.iter().filter(|tally| tally.starts_with("1 of 1 clients")).count()
}
