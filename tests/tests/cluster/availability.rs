//! What the cluster notices of the webhook's ups and downs.

use std::time::Instant;

use serde_json::Value;

use crate::lab::{
    Lab, SYSTEM, annotated_pod, in_both_modes, is_ready, loader, opted_out_pod, plain_pod,
    repository,
};
use crate::load::{Load, RATE};

in_both_modes! {
    alone:
    no_call_fails_while_certificates_and_replicas_change
    what_is_uninstalled_blocks_nobody
}
in_both_modes! { without_replicas_only_annotated_pods_wait }

/// Lives of certificates that are over while one looks on.
const SHORT_LIVES: &str =
    "SFUNNEL_CA_LIFETIME=60s SFUNNEL_CERTIFICATE_LIFETIME=15s SFUNNEL_CA_OVERLAP=5s";

fn no_call_fails_while_certificates_and_replicas_change(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("availability");
    // With short lives from the start.
    lab.kubectl(&format!("-n {SYSTEM} scale deployment sfunnel-webhook --replicas=0"));
    no_replicas(lab);
    lab.kubectl(&format!("-n {SYSTEM} delete secret sfunnel-webhook-ca"));
    let _restored = ShortLives(lab);
    lab.kubectl(&format!("-n {SYSTEM} set env deployment/sfunnel-webhook {SHORT_LIVES}"));
    lab.kubectl(&format!("-n {SYSTEM} scale deployment sfunnel-webhook --replicas=2"));
    lab.rolled_out(SYSTEM, "deployment/sfunnel-webhook");

    let first = signer(lab);
    let load = Load::start(lab.cluster(), &annotated_pod(namespace.name(), "load"));
    let start = Instant::now();

    let replicas = lab.replicas();
    assert_eq!(replicas.len(), 2);
    for pod in replicas {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        // kubectl waits for its end. A grace period shorter than the manifest's would promise nothing: how
        // long a node takes until it sends no more to the replica is the machine's business.
        lab.kubectl(&format!("-n {SYSTEM} delete pod {name}"));
        lab.rolled_out(SYSTEM, "deployment/sfunnel-webhook");
    }
    let deleted = start.elapsed();
    lab.kubectl(&format!("-n {SYSTEM} rollout restart deployment/sfunnel-webhook"));
    lab.rolled_out(SYSTEM, "deployment/sfunnel-webhook");
    let restarted = start.elapsed();
    // After 40 s there is another CA, and 5 s later it signs.
    lab.wait_for("another CA to sign", || (signer(lab) != first).then_some(()));
    let rotated = start.elapsed();
    lab.wait_for("a third certificate of each replica", || {
        let renewed = |pod: &Value| {
            let name = pod["metadata"]["name"].as_str().expect("a name");
            // None of a replica that has ended meanwhile.
            let log = lab.cluster().run(&format!("-n {SYSTEM} logs {name}")).unwrap_or_default();
            log.lines().filter(|line| line.contains(" certificate serial=")).count() > 2
        };
        lab.replicas().iter().all(renewed).then_some(())
    });
    // The last ones are shown for a while, too.
    load.pass(10 * RATE as usize);
    let wanted = start.elapsed().as_secs_f64() * f64::from(RATE);
    let outcome = load.stop();
    assert!(outcome.injected as f64 > 0.9 * wanted, "{} of {wanted:.0}", outcome.injected);
    lab.report(format_args!(
        "{} admissions in {:?}: {} failed, the slowest took {:?}; both replicas deleted until {deleted:?}, \
         restarted until {restarted:?}, a new CA signs after {rotated:?}",
        outcome.injected,
        start.elapsed(),
        outcome.failures.len(),
        outcome.slowest
    ));
    outcome.assert_all_injected();
}

/// Takes the short lives back, also when the test has failed.
struct ShortLives<'a>(&'a Lab);

impl Drop for ShortLives<'_> {
    fn drop(&mut self) {
        let names: Vec<_> = SHORT_LIVES
            .split(' ')
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, _)| format!("{name}-"))
            .collect();
        let restore = format!("-n {SYSTEM} set env deployment/sfunnel-webhook {}", names.join(" "));
        for line in [restore, format!("-n {SYSTEM} delete secret sfunnel-webhook-ca")] {
            if let Err(error) = self.0.cluster().run(&line) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// The CA that signs the replicas' certificates.
fn signer(lab: &Lab) -> String {
    let ca = lab.get(&format!("secret sfunnel-webhook-ca -n {SYSTEM}"))["data"]["ca.crt"].clone();
    ca.as_str().expect("a CA").to_owned()
}

fn no_replicas(lab: &Lab) {
    assert!(!lab.replicas().is_empty(), "they were gone before");
    lab.wait_for("the last replica to end", || lab.replicas().is_empty().then_some(()));
}

fn without_replicas_only_annotated_pods_wait(lab: &Lab) {
    lab.install();
    let labelled = lab.labelled("down-labelled");
    let unlabelled = lab.unlabelled("down-unlabelled");
    lab.kubectl(&format!("-n {SYSTEM} scale deployment sfunnel-webhook --replicas=0"));
    no_replicas(lab);

    let error = lab.apply_fails(&annotated_pod(labelled.name(), "annotated"));
    assert!(error.contains("failed calling webhook \"inject.sfunnel.io\""), "{error}");
    lab.apply(&plain_pod(labelled.name(), "plain"));
    labelled.ready("app=plain", 1);
    lab.apply(&annotated_pod(unlabelled.name(), "annotated"));
    unlabelled.ready("app=annotated", 1);
    lab.apply(&opted_out_pod(labelled.name(), "opted-out"));
    labelled.ready("app=opted-out", 1);

    // It starts without its own help.
    lab.kubectl(&format!("-n {SYSTEM} scale deployment sfunnel-webhook --replicas=2"));
    lab.rolled_out(SYSTEM, "deployment/sfunnel-webhook");
    lab.apply(&annotated_pod(labelled.name(), "annotated"));
    let pods = labelled.ready("app=annotated", 1);
    assert!(loader(&pods[0]).is_some());
}

fn what_is_uninstalled_blocks_nobody(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("uninstalled");
    let deploy = repository("deploy");
    let load = Load::start(lab.cluster(), &annotated_pod(namespace.name(), "load"));
    load.pass(50);
    lab.kubectl_with("delete", "-k", &deploy);
    load.pass(50);
    let outcome = load.stop();
    lab.report(format_args!(
        "while it was uninstalled: {} injected, {} not, {} failed",
        outcome.injected,
        outcome.plain,
        outcome.failures.len()
    ));
    assert_eq!(outcome.failures, []);
    assert!(outcome.injected > 0 && outcome.plain > 0);

    lab.apply(&annotated_pod(namespace.name(), "annotated"));
    let pods = namespace.ready("app=annotated", 1);
    assert!(is_ready(&pods[0]) && loader(&pods[0]).is_none());
    for kind in [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "clusterroles",
        "clusterrolebindings",
        "namespaces",
    ] {
        let all = lab.kubectl(&format!("get {kind} -o name"));
        assert!(!all.contains("sfunnel"), "left behind: {all}");
    }
}
