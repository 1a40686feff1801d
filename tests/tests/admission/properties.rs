//! What holds for every pod.

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use webhook::decision::{Decision, Verdict, decide};
use webhook::endpoint::{Endpoint, Namespace, Webhook};
use webhook::reason::SkipReason;
use webhook::review::Review;
use webhook::settings::Settings;

use crate::review::review;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

fn settings(secret: bool) -> Settings {
    let mut flags = vec!["test", "--loader-image", "loader:1"];
    if secret {
        flags.extend(["--loader-pull-secret", "regcred"]);
    }
    let cli: Cli = clap::Parser::try_parse_from(flags).unwrap();
    cli.settings
}

/// A list that is absent (outer `None`), null (inner `None`), empty or filled.
fn list(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    option::of(option::of(vec(item, 0..4)).prop_map(|list| match list {
        Some(list) => Value::Array(list),
        None => Value::Null,
    }))
}

/// Fields that no version of the API has, in names that collide with nothing.
fn unknown() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map("[~/a-z ]{0,4}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    btree_map("x-[~/a-z]{1,4}", value, 0..3).prop_map(|map| map.into_iter().collect())
}

/// A named object with fields of all kinds.
fn named(name: &'static str) -> impl Strategy<Value = Value> {
    (name, unknown()).prop_map(|(name, mut fields)| {
        fields.insert("name".to_owned(), name.into());
        Value::Object(fields)
    })
}

fn annotations() -> impl Strategy<Value = Value> {
    let ruleset = "ip tcp dport 80 sport 540 actions unfunnel tcp";
    let others = btree_map("example.com/[a-z~]{1,8}", ".{0,16}", 0..3);
    let ours = prop_oneof![
        Just(vec!["sfunnel.io/ruleset"]),
        Just(vec!["sfunnel.io/egress-ruleset"]),
        Just(vec!["sfunnel.io/ruleset", "sfunnel.io/egress-ruleset"]),
    ];
    let status = option::of("[a-z]{0,8}");
    let interfaces = option::of("(eth0|net1)?( eth2)?");
    (ours, others, status, interfaces).prop_map(move |(ours, others, status, interfaces)| {
        let mut all: Map<String, Value> =
            others.into_iter().map(|(name, value)| (name, value.into())).collect();
        all.extend(ours.into_iter().map(|name| (name.to_owned(), ruleset.into())));
        all.extend(status.map(|value| ("sfunnel.io/status".to_owned(), value.into())));
        all.extend(interfaces.map(|value| ("sfunnel.io/interfaces".to_owned(), value.into())));
        Value::Object(all)
    })
}

/// Pods that are to be injected, in every shape that the API allows.
fn pod() -> impl Strategy<Value = Value> {
    let lists = (
        list(named("[a-m][a-z0-9-]{0,8}")),
        list(named("[a-m][a-z0-9-]{0,8}")),
        list(named("(regcred|other)")),
        vec(named("[n-r][a-z0-9-]{0,8}"), 1..3),
    );
    let unknown = (unknown(), unknown(), unknown());
    (annotations(), lists, unknown, option::of(any::<bool>())).prop_map(
        |(annotations, (init, volumes, secrets, containers), (top, meta, spec), automount)| {
            let mut spec = spec;
            spec.insert("containers".to_owned(), containers.into());
            spec.extend(init.map(|list| ("initContainers".to_owned(), list)));
            spec.extend(volumes.map(|list| ("volumes".to_owned(), list)));
            spec.extend(secrets.map(|list| ("imagePullSecrets".to_owned(), list)));
            spec.extend(
                automount.map(|value| ("automountServiceAccountToken".to_owned(), value.into())),
            );
            let mut meta = meta;
            meta.insert("annotations".to_owned(), annotations);
            let mut pod = top;
            pod.insert("metadata".to_owned(), meta.into());
            pod.insert("spec".to_owned(), spec.into());
            Value::Object(pod)
        },
    )
}

fn decide_json(pod: &Value, settings: &Settings) -> Decision {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    decide(&pod, settings)
}

fn patched(pod: &Value, patch: &Patch) -> Value {
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, patch).unwrap();
    pod
}

/// Takes away what an injection adds, and fails when it isn't where it belongs.
fn undo(mut injected: Value, original: &Value, secret: bool) -> Value {
    let spec = injected["spec"].as_object_mut().unwrap();
    let was = &original["spec"];
    let take = |spec: &mut Map<String, Value>, list: &str, name: &str, first: bool| {
        let items = spec[list].as_array_mut().unwrap();
        let item = if first { items.remove(0) } else { items.pop().unwrap() };
        assert_eq!(item["name"], name);
        if items.is_empty() {
            // As it was: absent, null or empty.
            match was.get(list) {
                Some(before) => spec.insert(list.to_owned(), before.clone()),
                None => spec.remove(list),
            };
        }
    };
    take(spec, "initContainers", "sfunnel-loader", true);
    if was.get("automountServiceAccountToken") != Some(&json!(false)) {
        take(spec, "volumes", "sfunnel-no-token", false);
    }
    let had = was["imagePullSecrets"].as_array();
    let had = had.is_some_and(|list| list.iter().any(|item| item["name"] == "regcred"));
    if secret && !had {
        take(spec, "imagePullSecrets", "regcred", false);
    }
    let annotations = injected["metadata"]["annotations"].as_object_mut().unwrap();
    assert_eq!(annotations.remove("sfunnel.io/status").unwrap(), "injected");
    if let Some(before) = original["metadata"]["annotations"].get("sfunnel.io/status") {
        annotations.insert("sfunnel.io/status".to_owned(), before.clone());
    }
    injected
}

proptest! {
    #[test]
    fn a_patch_applies_keeps_the_rest_and_is_the_last_one(pod in pod(), secret: bool) {
        let settings = settings(secret);
        let Verdict::Inject(patch) = decide_json(&pod, &settings).verdict else {
            panic!("not patched: {pod}");
        };
        let injected = patched(&pod, &patch);
        prop_assert_eq!(&undo(injected.clone(), &pod, secret), &pod);
        prop_assert_eq!(decide_json(&injected, &settings), SkipReason::AlreadyInjected.into());
    }

    /// Another webhook may move the loader and add containers of its own.
    #[test]
    fn the_loader_is_known_again_anywhere(pod in pod(), before in vec(named("[a-m][a-z]{0,4}"), 0..4), at: prop::sample::Index) {
        let settings = settings(false);
        let Verdict::Inject(patch) = decide_json(&pod, &settings).verdict else {
            panic!("not patched: {pod}");
        };
        let mut injected = patched(&pod, &patch);
        let list = injected["spec"]["initContainers"].as_array_mut().unwrap();
        let loader = list.remove(0);
        list.splice(0..0, before);
        let at = at.index(list.len() + 1);
        list.insert(at, loader);
        prop_assert_eq!(decide_json(&injected, &settings), SkipReason::AlreadyInjected.into());
    }

    /// A review with bytes changed, added or cut is refused or decided, and never ends in a panic.
    #[test]
    fn no_body_causes_a_panic(pod in pod(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in option::of(any::<prop::sample::Index>())) {
        let mut body = review(&pod, &json!({})).to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let endpoint = Endpoint { webhook: Webhook::Mutate, namespace: Namespace::Enabled };
        if let Ok(review) = Review::parse(&body, endpoint) {
            let decision = review.decide(&settings(true));
            let answer: Value = serde_json::from_slice(&review.answer(&decision)).unwrap();
            let denied = matches!(decision.verdict, Verdict::Deny(_));
            prop_assert_eq!(&answer["response"]["allowed"], &json!(!denied));
        }
    }
}
