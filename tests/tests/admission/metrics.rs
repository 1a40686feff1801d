//! Every decision is counted, and so is all that comes to nothing.

use hyper::StatusCode;
use serde_json::json;
use tokio::net::TcpStream;

use crate::review::review;
use crate::server::{TestServer, post};

#[tokio::test]
async fn decisions_are_counted_by_kind_and_reason() {
    let server = TestServer::start(&[]).await;
    let ask = async |path: &str, annotations: serde_json::Value| {
        let pod = json!({
            "metadata": { "name": "web", "annotations": annotations },
            "spec": { "containers": [{ "name": "app" }] },
        });
        server.review_at(path, &review(&pod, &json!({}))).await;
    };
    let rules = "ip tcp dport 80 sport 540 actions unfunnel tcp";
    for _ in 0..3 {
        ask("/mutate", json!({ "sfunnel.io/ruleset": rules })).await;
    }
    ask("/mutate/enforced", json!({ "sfunnel.io/ruleset": rules })).await;
    ask("/mutate", json!({ "sfunnel.io/ruleset": "x" })).await;
    ask("/mutate", json!({ "sfunnel.io/rulesets": rules })).await;
    ask("/mutate", json!({ "sfunnel.io/ruleset": rules, "sfunnel.io/inject": "false" })).await;
    ask("/validate", json!({ "sfunnel.io/ruleset": rules })).await;
    ask("/validate/unlabelled", json!({ "sfunnel.io/ruleset": rules })).await;
    server.post("{").await;
    server.send(post("text/plain", "{}")).await;

    let decisions = |webhook, decision, reason| {
        format!(
            "decisions_total{{webhook=\"{webhook}\",decision=\"{decision}\",reason=\"{reason}\"}}"
        )
    };
    // From 50 µs to what API servers wait, in steps that nobody gets lost in.
    let text = server.health("/metrics").await;
    let bounds: Vec<f64> = text
        .text()
        .lines()
        .filter(|line| line.starts_with("sfunnel_webhook_review_duration_seconds_bucket"))
        .filter(|line| line.contains("webhook=\"mutate\""))
        .filter_map(|line| line.split_once("le=\"")?.1.split_once('"')?.0.parse().ok())
        .collect();
    assert_eq!((bounds[0], bounds[bounds.len() - 2]), (50e-6, 5.0), "{bounds:?}");
    for pair in bounds[..bounds.len() - 1].windows(2) {
        assert!(pair[0] < pair[1] && pair[1] / pair[0] < 2.51, "{bounds:?}");
    }

    for (metric, expect) in [
        (decisions("mutate", "injected", "annotated"), 4.0),
        (decisions("mutate", "denied", "bad-ruleset"), 1.0),
        (decisions("mutate", "skipped", "no-ruleset"), 1.0),
        (decisions("mutate", "skipped", "opted-out"), 1.0),
        (decisions("validate", "valid", "annotated"), 1.0),
        (decisions("validate", "skipped", "not-enabled"), 1.0),
        ("warnings_total{kind=\"pod-security\"}".to_owned(), 1.0),
        ("warnings_total{kind=\"unknown-annotation\"}".to_owned(), 1.0),
        ("warnings_total{kind=\"loader-missing\"}".to_owned(), 1.0),
        ("warnings_total{kind=\"not-enabled\"}".to_owned(), 1.0),
        ("review_duration_seconds_count{webhook=\"mutate\"}".to_owned(), 7.0),
        ("review_duration_seconds_count{webhook=\"validate\"}".to_owned(), 2.0),
        ("review_duration_seconds_bucket{le=\"+Inf\",webhook=\"mutate\"}".to_owned(), 7.0),
        ("refusals_total{status=\"400\"}".to_owned(), 1.0),
        ("refusals_total{status=\"415\"}".to_owned(), 1.0),
        ("refusals_total{status=\"500\"}".to_owned(), 0.0),
        ("reviews_in_flight".to_owned(), 0.0),
        ("connections_accepted_total".to_owned(), 11.0),
        ("panics_total".to_owned(), 0.0),
        ("ready".to_owned(), 1.0),
        (format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        assert_eq!(
            server.metric(&format!("sfunnel_webhook_{metric}")).await,
            Some(expect),
            "{metric}"
        );
    }
}

#[tokio::test]
async fn the_certificate_is_dated() {
    let server = TestServer::start(&[]).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp() as f64;
    let metric =
        async |name: &str| server.metric(&format!("sfunnel_webhook_{name}")).await.unwrap();
    let ten_years = 3650.0 * 86_400.0;
    for end in ["certificate_expiry_timestamp_seconds", "ca_expiry_timestamp_seconds"] {
        let left = metric(end).await - now;
        assert!((ten_years - 3_600.0..=ten_years).contains(&left), "{end}: {left}");
    }
    let age = now - metric("ca_created_timestamp_seconds").await;
    assert!((0.0..3_600.0).contains(&age), "{age}");
}

#[tokio::test]
async fn connections_and_handshakes_are_counted() {
    let mut server = TestServer::start(&[]).await;
    let metric =
        async |name: &str| server.metric(&format!("sfunnel_webhook_{name}")).await.unwrap();
    let (one, two) = (server.connect().await, server.connect().await);
    assert_eq!(metric("connections").await, 2.0);
    drop((one, two));
    while metric("connections").await > 0.0 {
        tokio::task::yield_now().await;
    }
    // A probe of the port, and a client that doesn't trust the certificate.
    drop(TcpStream::connect(server.addresses.admission).await.unwrap());
    let failures = |reason| format!("tls_handshake_failures_total{{reason=\"{reason}\"}}");
    while metric(&failures("closed")).await < 1.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(metric(&failures("failed")).await, 0.0);
    server.roots = TestServer::start(&[]).await.roots;
    assert!(server.connect_with(&[b"http/1.1"]).await.is_err());
    let failed = format!("sfunnel_webhook_{}", failures("failed"));
    while server.metric(&failed).await != Some(1.0) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_text_is_open_metrics() {
    let server = TestServer::start(&[]).await;
    let answer = server.health("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.content_type.as_deref(), Some(media_type));
    assert!(answer.text().ends_with("# EOF\n"));
    let types = answer.text().lines().filter(|line| line.starts_with("# TYPE ")).count();
    let helps = answer.text().lines().filter(|line| line.starts_with("# HELP ")).count();
    assert!(types == helps && types > 10, "{types} types, {helps} helps");
}
