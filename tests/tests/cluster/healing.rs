//! What comes back by itself, and how soon.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::netns::Checked as _;

use crate::lab::{Lab, SYSTEM, annotated_pod, in_both_modes, repository};

in_both_modes! { alone: what_is_deleted_or_wiped_comes_back }

/// Far more than a watch takes, far less than a person.
const SOON: Duration = Duration::from_secs(10);

fn what_is_deleted_or_wiped_comes_back(lab: &Lab) {
    lab.install();
    let namespace = lab.labelled("healing");
    let trusted = bundle(lab).expect("a CA bundle");

    let mut table = Vec::new();
    let mut heal = |what: &'static str, damage: &dyn Fn(), is_whole: &dyn Fn() -> bool| {
        damage();
        let start = Instant::now();
        lab.wait_for(what, || is_whole().then_some(()));
        table.push((what, start.elapsed()));
        // Not only there, but right: the API server may take a moment to hear of it.
        let pod = annotated_pod(namespace.name(), "pod");
        lab.wait_for("an admission", || lab.cluster().apply(&pod.to_string()).ok());
        table.push(("... and a pod is admitted", start.elapsed()));
        lab.kubectl(&format!("-n {} delete pod pod --now", namespace.name()));
    };

    let secret =
        || lab.cluster().run(&format!("-n {SYSTEM} get secret sfunnel-webhook-ca -o json"));
    let has_key = || {
        let secret = secret().ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        secret.is_some_and(|secret| secret["data"]["ca.key"].is_string())
    };
    heal(
        "the Secret is deleted",
        &|| drop(lab.kubectl(&format!("-n {SYSTEM} delete secret sfunnel-webhook-ca"))),
        &has_key,
    );
    heal(
        "the Secret is emptied",
        &|| patch(lab, "secret", &json!([{"op": "remove", "path": "/data"}])),
        &has_key,
    );
    heal(
        "the Secret holds nonsense",
        &|| {
            patch(
                lab,
                "secret",
                &json!([{"op": "add", "path": "/data/ca.key", "value": "bm9uc2Vuc2U="}]),
            )
        },
        &|| secret().is_ok_and(|text| !text.contains("bm9uc2Vuc2U=")),
    );
    let path = "/webhooks/0/clientConfig/caBundle";
    heal(
        "the CA bundle is wiped",
        &|| patch(lab, "configuration", &json!([{"op": "remove", "path": path}])),
        &|| bundle(lab).is_some_and(|bundle| bundle == trusted),
    );
    heal(
        "the configuration is deleted and applied again",
        &|| {
            lab.kubectl("delete mutatingwebhookconfiguration sfunnel-webhook");
            lab.kubectl_with("apply", "-k", &repository("deploy"));
        },
        &|| bundle(lab).is_some_and(|bundle| bundle == trusted),
    );

    for (what, took) in &table {
        lab.report(format_args!("{what:<50}{took:>10.1?}"));
    }
    for (what, took) in table {
        assert!(took < SOON, "{what}: healed after {took:?} only");
    }
}

fn bundle(lab: &Lab) -> Option<String> {
    let line = "get mutatingwebhookconfiguration sfunnel-webhook \
                -o jsonpath={.webhooks[0].clientConfig.caBundle}";
    lab.cluster().run(line).ok().filter(|bundle| !bundle.is_empty())
}

fn patch(lab: &Lab, object: &str, patch: &Value) {
    let object = match object {
        "secret" => ["secret", "sfunnel-webhook-ca"],
        _ => ["mutatingwebhookconfiguration", "sfunnel-webhook"],
    };
    let mut kubectl = lab.cluster().kubectl();
    kubectl.args(["-n", SYSTEM, "patch"]).args(object).args(["--type=json", "--patch"]);
    kubectl.arg(patch.to_string()).checked().unwrap_or_else(|error| panic!("{error:#}"));
}
