//! Rulesets that mean harm, or are a mistake.

use std::time::Instant;

use serde_json::{Value, json};

use crate::review::{Verdict, review};
use crate::server::TestServer;

async fn ask(server: &TestServer, annotation: &str, text: &str) -> Verdict {
    let pod: Value = json!({
        "metadata": { "name": "web", "annotations": { annotation: text } },
        "spec": { "containers": [{ "name": "app" }] },
    });
    server.review(&review(&pod, &json!({}))).await
}

const BOTH: [&str; 2] = ["sfunnel.io/ruleset", "sfunnel.io/egress-ruleset"];

#[tokio::test]
async fn mistakes_are_denied_with_their_place() {
    let server = TestServer::start(&[]).await;
    let rows = [
        ("", 1, 1),
        ("  \n\t\n", 1, 1),
        ("ip tcp\0 actions accept", 1, 7),
        ("ip tcp actions accept\n\u{1b}[2Jip", 2, 1),
        ("ip tcp dport ８０ actions drop", 1, 14),
        ("ip tcp dport \u{202e}80 actions drop", 1, 14),
        ("ip tcp dport 65536 actions drop", 1, 14),
        ("ip tcp dport 0 actions drop", 1, 14),
        ("ip saddr 10.0.0.0/33 tcp actions drop", 1, 10),
        ("ip saddr ::1 tcp actions drop", 1, 10),
        ("ip tcp actions drop; ip tcp dport 1-0 actions drop", 1, 35),
    ];
    for (text, line, column) in rows {
        for annotation in BOTH {
            let message = ask(&server, annotation, text).await.denied();
            let start = format!("annotation {annotation} holds no valid ruleset\nerror: ");
            assert!(message.starts_with(&start), "{text:?}: {message}");
            let place = format!("\n  at line {line}, column {column}\n");
            assert!(message.contains(&place), "{text:?}: {message}");
            check_shape(&message);
        }
    }
}

/// At most one line of the ruleset, nothing that a terminal acts on, and no megabytes.
fn check_shape(message: &str) {
    assert!(message.chars().count() < 800, "{message}");
    assert!(!message.replace('\n', "").contains(char::is_control), "{message:?}");
    assert!(message.lines().filter(|line| line.starts_with("  | ")).count() <= 2, "{message}");
}

#[tokio::test]
async fn a_ruleset_longer_than_a_variable_is_denied() {
    let server = TestServer::start(&[]).await;
    let rule = "ip tcp dport 80 sport 540 actions unfunnel tcp";
    let fits = format!("{rule}{}", " ".repeat(ruleset::MAX_ENV_TEXT - rule.len()));
    for annotation in BOTH {
        let verdict = ask(&server, annotation, &fits).await;
        assert!(matches!(verdict, Verdict::Patched { .. }), "{verdict:?}");
        let message = ask(&server, annotation, &format!("{fits} ")).await.denied();
        let (len, max) = (ruleset::MAX_ENV_TEXT + 1, ruleset::MAX_ENV_TEXT);
        let start = format!("annotation {annotation} has {len} bytes; at most {max} can be handed");
        assert!(message.starts_with(&start), "{message}");
        // Bytes count, not characters.
        let message =
            ask(&server, annotation, &"ü".repeat(ruleset::MAX_ENV_TEXT / 2 + 1)).await.denied();
        assert!(message.contains("can be handed"), "{message}");
    }
}

#[tokio::test]
async fn thousands_of_rules_are_decided_in_the_time_of_a_request() {
    let server = TestServer::start(&[]).await;
    let ask = |text: String| {
        let server = &server;
        async move {
            let start = Instant::now();
            let verdict = ask(server, BOTH[0], &text).await;
            assert!(start.elapsed().as_secs() < 5, "the API server gives up after 5 s");
            verdict
        }
    };
    let rules = |count: usize| -> Vec<_> {
        (1..=count).map(|port| format!("tcp dport {port} actions drop")).collect()
    };
    // 10,000 rules fit in no variable, however short they are; 7,000 do.
    let message = ask(rules(10_000).join("\n")).await.denied();
    assert!(message.contains("can be handed to the loader"), "{message}");
    let message = ask("tcp actions drop\n".repeat(7_000)).await.denied();
    assert!(message.contains("error: the ruleset has more than"), "{message}");
    check_shape(&message);

    let different = ask(rules(4_000).join("\n")).await;
    assert!(
        matches!(&different, Verdict::Patched { warnings, .. } if warnings.is_empty()),
        "{different:?}"
    );
    // All but the first are shadowed; the limits of the API server hold for their warnings.
    let Verdict::Patched { warnings, .. } = ask("tcp actions drop\n".repeat(4_000)).await else {
        panic!("not patched")
    };
    let shown = warnings.len() - 1;
    assert!(shown > 10, "{warnings:?}");
    let left = warnings[shown].strip_suffix(" more warnings are not shown").unwrap();
    assert!(left.parse::<usize>().unwrap() > 0, "{warnings:?}");
}

#[tokio::test]
async fn thousands_of_unknown_annotations_cost_little_and_are_counted() {
    let server = TestServer::start(&[]).await;
    let mut annotations: serde_json::Map<_, _> =
        (0..20_000).map(|n| (format!("sfunnel.io/x{n:05}"), json!(""))).collect();
    annotations.insert(BOTH[0].to_owned(), json!("tcp actions drop"));
    let pod = json!({
        "metadata": { "annotations": annotations },
        "spec": { "containers": [{ "name": "app" }] },
    });
    let start = Instant::now();
    let verdict = server.review(&review(&pod, &json!({}))).await;
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    let Verdict::Patched { warnings, .. } = verdict else { panic!("not patched") };
    assert_eq!(warnings.len(), 9);
    assert_eq!(warnings[0], "annotation sfunnel.io/x00000 is unknown and does nothing");
    assert_eq!(warnings[8], "19992 more annotations under sfunnel.io/ are unknown and do nothing");
}

#[tokio::test]
async fn a_long_line_is_not_echoed_in_whole() {
    let server = TestServer::start(&[]).await;
    let text = format!("ip tcp dport {{ {} }} actions drop", "80, ".repeat(20_000) + "x");
    check_shape(&ask(&server, BOTH[0], &text).await.denied());
    let text = format!("ip tcp dport {} actions drop", "9".repeat(100_000));
    check_shape(&ask(&server, BOTH[0], &text).await.denied());
    let text = format!("{} actions drop", "x".repeat(100_000));
    check_shape(&ask(&server, BOTH[0], &text).await.denied());
    let message = ask(&server, "sfunnel.io/ruleset", &"\u{7f}".repeat(100_000)).await.denied();
    check_shape(&message);
}

#[tokio::test]
async fn strangers_text_in_other_fields_is_quoted() {
    let server = TestServer::start(&["--deny-runtime-class", "a\nb"]).await;
    let ask = |pod: Value| {
        let server = &server;
        async move { server.review(&review(&pod, &json!({}))).await.denied() }
    };
    let long = "\u{1b}[2J\n".repeat(10_000);
    let rule = "ip tcp actions drop";
    let app = json!([{ "name": "app" }]);
    check_shape(&ask(json!({
        "metadata": { "annotations": { "sfunnel.io/ruleset": rule, "sfunnel.io/inject": long } },
        "spec": { "containers": app },
    })).await);
    check_shape(&ask(json!({
        "metadata": { "annotations": { "sfunnel.io/ruleset": rule, "sfunnel.io/interfaces": long } },
        "spec": { "containers": app },
    })).await);
    check_shape(
        &ask(json!({
            "metadata": { "annotations": { "sfunnel.io/ruleset": rule } },
            "spec": { "containers": app, "runtimeClassName": "a\nb" },
        }))
        .await,
    );
    check_shape(&ask(json!({
        "metadata": { "annotations": { "sfunnel.io/ruleset": rule } },
        "spec": { "containers": app, "initContainers": [{ "name": "sfunnel-loader", "image": long }] },
    })).await);
}
