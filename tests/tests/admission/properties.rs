//! What holds for every pod.
//!
//! Byte for byte: a pod is text here, and never a `serde_json::Value`, which forgets how a number was
//! written and whose order of keys depends on features that others turn on. The patch is applied to the
//! text; what it was to add is taken out again, each thing from the place where it belongs; and then the
//! text has to be what it was before.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};
use tests::choices::Choices;
use tests::injection::undone;
use tests::pods;
use tests::verbatim::Json;
use webhook::admission::endpoint::{Endpoint, Namespace, Webhook};
use webhook::admission::review::Review;
use webhook::admission::settings::Settings;
use webhook::admission::{decide, response};

use crate::review::{Verdict, review};

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

const PULL_SECRET: &str = "regcred";

/// Without and with a pull secret.
static SETTINGS: LazyLock<[Settings; 2]> = LazyLock::new(|| {
    let flags = ["test", "--loader-image", "loader:1", "--loader-pull-secret", PULL_SECRET];
    [&flags[..3], &flags].map(|flags| {
        let cli: Cli = clap::Parser::try_parse_from(flags).unwrap();
        cli.settings
    })
});

/// The question about the creation of a pod, but for the pod.
static QUESTION: LazyLock<Value> = LazyLock::new(|| review(&Value::Null, &json!({})));
/// What stands before and behind the pod.
static AROUND: LazyLock<[String; 2]> = LazyLock::new(|| {
    let text = QUESTION.to_string();
    let (before, behind) = text.split_once(r#""object":null"#).unwrap();
    [format!(r#"{before}"object":"#), behind.to_owned()]
});

/// What the webhook answers to the question about this pod.
fn ask(pod: &Json, settings: &Settings) -> Verdict {
    let [before, behind] = &*AROUND;
    let body = format!("{before}{pod}{behind}");
    let endpoint = Endpoint { webhook: Webhook::Mutate, namespace: Namespace::Enabled };
    let review = Review::parse(body.as_bytes(), endpoint).unwrap();
    Verdict::read(&QUESTION, &response::serialize(&review.uid, &decide(&review, settings)))
}

/// The pod after its creation.
fn injected(pod: &Json, settings: &Settings) -> Json {
    let Verdict::Patched { patch, .. } = ask(pod, settings) else { panic!("not patched: {pod}") };
    let mut injected = pod.clone();
    injected.patch(&serde_json::to_value(patch).unwrap());
    injected
}

/// Pods that are to be injected, in every shape that the API allows. Fewer bytes make simpler ones.
fn pod() -> impl Strategy<Value = Json> {
    (0..800usize, any::<u64>().no_shrink()).prop_map(|(len, seed)| {
        let mut bytes = vec![0; len];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        pods::pod(&mut Choices::new(&bytes))
    })
}

const NOTHING_TO_DO: Verdict = Verdict::Skipped { warnings: Vec::new() };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_patch_applies_keeps_the_rest_and_is_the_last_one(pod in pod(), secret: bool) {
        let settings = &SETTINGS[usize::from(secret)];
        let injected = injected(&pod, settings);
        let left = undone(injected.clone(), &pod, secret.then_some(PULL_SECRET));
        prop_assert_eq!(left.to_string(), pod.to_string());
        prop_assert_eq!(ask(&injected, settings), NOTHING_TO_DO);
    }
}

proptest! {
    /// Another webhook may move the loader and add containers of its own.
    #[test]
    fn the_loader_is_known_again_anywhere(
        pod in pod(),
        before in vec("[a-m][a-z]{0,4}", 0..4),
        at: prop::sample::Index,
    ) {
        let settings = &SETTINGS[0];
        let mut injected = injected(&pod, settings);
        let list = injected.at_mut(&["spec", "initContainers"]).unwrap();
        let Json::List(items) = list else { panic!("no list: {list}") };
        let loader = items.remove(0);
        let others = before.iter().map(|name| Json::from_iter([("name", Json::string(name))]));
        items.splice(0..0, others);
        let at = at.index(items.len() + 1);
        items.insert(at, loader);
        prop_assert_eq!(ask(&injected, settings), NOTHING_TO_DO);
    }
}
