//! `deploy/monitoring`, held against what the webhook really exports.
//!
//! Whether queries are good PromQL, and whether alerts fire when they should, is for Prometheus itself to
//! tell: `tests/checks/manifests.sh check` asks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::exported::{Exported, exported};
use crate::rendered::{
    MUTATING, NAME, NAMESPACE, Rendered, VALIDATING, deploy, only, only_container,
};

/// Metrics of ours.
const PREFIX: &str = "sfunnel_webhook_";
/// Metrics of API servers about webhooks. `tests/tests/cluster/validate.rs` looks for them at a real one.
const API_SERVERS: &str = "apiserver_admission_webhook_";
/// A label that Prometheus gives to all that it collects.
const INSTANCE: &str = "instance";

fn file(path: &str) -> String {
    fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&file("monitoring/alerts.yaml")).expect("YAML");
    let group = only(file["groups"].as_array().unwrap().clone());
    group["rules"].as_array().unwrap().clone()
}

fn dashboard() -> Value {
    serde_json::from_str(&file("monitoring/dashboard.json")).expect("JSON")
}

/// The dashboard's panels, but for the headings between them.
fn panels() -> Vec<Value> {
    let panels = dashboard()["panels"].as_array().unwrap().clone();
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// Every query, with the alert or panel that it belongs to.
fn queries() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut queries: Vec<_> =
        alerts().iter().map(|alert| (text(&alert["alert"]), text(&alert["expr"]))).collect();
    for panel in panels() {
        for target in panel["targets"].as_array().unwrap() {
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    queries
}

/// A metric in a query, and what is asked of its labels.
#[derive(Debug)]
struct Selector<'a> {
    metric: &'a str,
    /// Label, operator, value.
    matchers: Vec<(&'a str, &'a str, &'a str)>,
}

/// The metrics in a query.
fn selectors(query: &str) -> Vec<Selector<'_>> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    for prefix in [PREFIX, API_SERVERS] {
        for (start, _) in query.match_indices(prefix) {
            let rest = &query[start..];
            let (metric, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            let matchers = rest.strip_prefix('{').map_or_else(Vec::new, |rest| {
                let (inside, _) = rest.split_once('}').expect("a closing brace");
                inside.split(',').map(matcher).collect()
            });
            found.push(Selector { metric, matchers });
        }
    }
    found
}

fn matcher(text: &str) -> (&str, &str, &str) {
    let text = text.trim();
    let operator = text.find(['=', '!']).unwrap_or_else(|| panic!("no operator: {text}"));
    let quote = text.find('"').unwrap_or_else(|| panic!("no value: {text}"));
    (&text[..operator], &text[operator..quote], text[quote..].trim_matches('"'))
}

/// The labels that a query's aggregations keep.
fn kept(query: &str) -> Vec<&str> {
    let lists = query.split("by (").skip(1).map(|rest| rest.split_once(')').expect("a list").0);
    lists.flat_map(|list| list.split(',').map(str::trim)).collect()
}

#[test]
fn queries_are_taken_apart() {
    let query = r#"sum by (le, name) (rate(sfunnel_webhook_a_bucket{x="1", y!~"b.c"}[5m])) / sfunnel_webhook_b"#;
    let [a, b] = <[_; 2]>::try_from(selectors(query)).unwrap();
    assert_eq!(a.metric, "sfunnel_webhook_a_bucket");
    assert_eq!(a.matchers, [("x", "=", "1"), ("y", "!~", "b.c")]);
    assert_eq!((b.metric, b.matchers.len()), ("sfunnel_webhook_b", 0));
    assert_eq!(kept(query), ["le", "name"]);
}

#[test]
fn queries_ask_for_what_is_exported() {
    let exported = exported();
    let entries = [MUTATING, VALIDATING].map(|kind| Rendered::folder(".").entries(kind)).concat();
    for (whose, query) in queries() {
        let selectors = selectors(&query);
        assert!(!selectors.is_empty(), "{whose}: {query}");
        let mut labels = BTreeSet::from([INSTANCE]);
        for selector in &selectors {
            if selector.metric.starts_with(API_SERVERS) {
                labels.extend(["name", "error_type", "le"]);
                assert_names_entries(selector, entries.iter().map(|entry| entry.name.as_str()));
            } else {
                assert_is_exported(&exported, selector, &whose);
                labels.extend(exported.labels(selector.metric));
            }
        }
        for label in kept(&query) {
            assert!(labels.contains(label), "{whose} keeps {label}, which nothing there has");
        }
    }
}

fn assert_is_exported(exported: &Exported, selector: &Selector<'_>, whose: &str) {
    let Selector { metric, matchers } = selector;
    assert!(exported.has(metric), "{whose}: nothing exports {metric}");
    for &(label, operator, value) in matchers {
        assert_eq!(operator, "=", "{whose}: {metric}: another operator for {label}");
        let values = exported.values(metric, label);
        assert!(values.contains(value), "{whose}: {metric} has no {label}={value:?}: {values:?}");
    }
}

/// API servers tell the entries of webhook configurations apart by their names.
fn assert_names_entries<'a>(selector: &Selector<'_>, entries: impl Iterator<Item = &'a str>) {
    let mut names = selector.matchers.iter().filter(|(label, ..)| *label == "name");
    let Some((_, "=~", pattern)) = names.next() else { panic!("whose calls? {selector:?}") };
    let mut entries: BTreeSet<_> = entries.collect();
    if *pattern == ".+[.]sfunnel[.]io" {
        assert!(entries.iter().all(|entry| entry.ends_with(".sfunnel.io")), "{entries:?}");
    } else {
        for name in pattern.split('|') {
            assert!(entries.remove(name), "no entry {name}: {selector:?}");
        }
    }
}

/// Nobody exports what nobody looks at.
#[test]
fn whatever_is_exported_is_asked_for() {
    let exported = exported();
    let queries = queries();
    let asked: BTreeSet<_> = queries
        .iter()
        .flat_map(|(_, query)| selectors(query))
        .filter_map(|selector| exported.family(selector.metric))
        .collect();
    assert_eq!(Vec::from_iter(exported.families()), Vec::from_iter(asked));
}

#[test]
fn every_alert_says_what_to_do() {
    let operating = fs::read_to_string(deploy().join("../docs/operating.md"));
    let operating = operating.expect("docs/operating.md, where alerts lead to");
    let headings: BTreeSet<_> = operating
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().replace('`', ""))
        .collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(name.starts_with("Sfunnel"), "{name}: whose?");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let annotations = alert["annotations"].as_object().unwrap();
        assert!(annotations.keys().eq(["description", "runbook_url", "summary"]), "{name}");
        let repository = env!("CARGO_PKG_REPOSITORY");
        let runbook =
            format!("{repository}/blob/HEAD/docs/operating.md#{}", name.to_ascii_lowercase());
        assert_eq!(annotations["runbook_url"], runbook);
        assert!(headings.contains(name), "docs/operating.md has no heading {name}");
    }
}

#[test]
fn alerts_name_labels_that_they_have() {
    for alert in alerts() {
        let query = alert["expr"].as_str().unwrap();
        let kept = kept(query);
        let description = alert["annotations"]["description"].as_str().unwrap();
        for rest in description.split("$labels.").skip(1) {
            let (label, _) = rest.split_once(' ').unwrap();
            let has = match label {
                INSTANCE => !query.contains("sum"),
                label => kept.contains(&label),
            };
            assert!(has, "{}: {label} is not among {kept:?}", alert["alert"]);
        }
    }
}

/// `promtool test rules` then tells whether they fire.
#[test]
fn every_alert_is_tested() {
    let path = deploy().join("../tests/checks/prometheus/alerts.yaml");
    let tests: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let tests = tests["tests"].as_array().unwrap();
    let tested: BTreeSet<_> = tests
        .iter()
        .flat_map(|test| test["name"].as_str().unwrap().split([' ', ',']))
        .filter(|word| word.starts_with("Sfunnel"))
        .map(str::to_owned)
        .collect();
    let alerts = alerts();
    let alerts = alerts.iter().map(|alert| alert["alert"].as_str().unwrap().to_owned());
    assert_eq!(tested, alerts.collect::<BTreeSet<_>>());
}

#[test]
fn the_operator_has_the_same_alerts_and_finds_the_pods() {
    let operator = Rendered::folder("monitoring/operator");
    let rule: Value = operator.get("PrometheusRule", NAME);
    let file: Value = serde_saphyr::from_str(&file("monitoring/alerts.yaml")).expect("YAML");
    assert_eq!(rule["spec"], file, "`make manifests` writes it anew");

    let installation = Rendered::folder(".");
    let monitor: Value = operator.get("PodMonitor", NAME);
    let deployment: Value = installation.get("Deployment", NAME);
    assert_eq!(monitor["spec"]["selector"], deployment["spec"]["selector"]);
    let endpoint = only(monitor["spec"]["podMetricsEndpoints"].as_array().unwrap().clone());
    assert_eq!(endpoint, json!({"port": "health", "path": "/metrics"}));
    let ports = only_container(&installation.pods(NAME)).ports.unwrap();
    assert!(ports.iter().any(|port| port.name.as_deref() == Some("health")));
    for object in operator.objects() {
        assert_eq!(object["metadata"]["namespace"], NAMESPACE);
    }
}

#[test]
fn the_dashboard_has_the_data_source_that_one_chooses() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let choice = &variables[0];
    assert_eq!((&choice["name"], &choice["type"]), (&json!("datasource"), &json!("datasource")));
    assert_eq!(choice["query"], "prometheus");
    let chosen = json!({"type": "prometheus", "uid": "${datasource}"});
    assert_eq!(variables[1]["datasource"], chosen);
    for panel in panels() {
        assert_eq!(panel["datasource"], chosen, "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"], chosen, "{}", panel["title"]);
        }
    }
    // Ids are the importing Grafana's business.
    assert_eq!(dashboard["id"], Value::Null);
    assert!(dashboard["schemaVersion"].is_u64());
}

#[test]
fn panels_stand_beside_each_other() {
    let dashboard = dashboard();
    let all = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), all.len());
    let mut taken = BTreeMap::new();
    for panel in all {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["type"] == "row" || panel["description"].is_string(), "{title}: what is it?");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is too wide");
        for row in place("y")..place("y") + place("h") {
            for column in place("x")..place("x") + place("w") {
                let other = taken.insert((row, column), title);
                assert_eq!(other, None, "{title} covers another one");
            }
        }
    }
}
