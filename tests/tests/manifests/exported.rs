//! What the webhook exports when everything has happened that can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use certs::{Authority, Validity};
use webhook::admission::decision::{Decision, Verdict};
use webhook::admission::endpoint::Webhook;
use webhook::admission::reason::{DenyReason, SkipReason};
use webhook::admission::warning::Warning;
use webhook::certificates::clock::Clock;
use webhook::certificates::resolver::CertResolver;
use webhook::server::metrics::Metrics;

/// All metrics, with series for whatever may have happened.
pub fn exported() -> Exported {
    let clock = Clock::system();
    let validity = Validity::starting(clock.now(), time::Duration::hours(1));
    let ca = Authority::new("a CA", validity).unwrap();
    let pair = ca.issue(&["localhost".try_into().unwrap()], validity).unwrap();
    let resolver = Arc::new(CertResolver::new(clock));
    resolver.show(&pair, Some(ca.validity()));

    let metrics = Metrics::new(resolver);
    for webhook in [Webhook::Mutate, Webhook::Validate] {
        for verdict in [
            Verdict::Valid,
            Verdict::Skip(SkipReason::NoRuleset),
            Verdict::Deny(DenyReason::HostNetwork),
        ] {
            let decision = Decision { verdict, warnings: vec![Warning::LoaderMissing] };
            metrics.decided(webhook, &decision, Duration::from_micros(100));
        }
    }
    Exported::parse(&metrics.encode())
}

/// The values of each label.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// An exposition in OpenMetrics text.
#[derive(Debug, Default)]
pub struct Exported {
    families: BTreeSet<String>,
    /// With the suffixes that each type adds to its family's name.
    samples: BTreeMap<String, Labels>,
}

impl Exported {
    fn parse(text: &str) -> Self {
        let mut exported = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (family, _) = rest.split_once(' ').expect("a family has a type");
                exported.families.insert(family.to_owned());
            } else if !line.starts_with('#') {
                exported.sample(line);
            }
        }
        exported
    }

    fn sample(&mut self, line: &str) {
        let (series, _) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let known = self.samples.entry(name.to_owned()).or_default();
        let labels = labels.strip_suffix('}').expect("a closing brace");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').expect("a label has a value");
            known.entry(name.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }

    /// Whether there is a sample of that name.
    pub fn has(&self, sample: &str) -> bool {
        self.samples.contains_key(sample)
    }

    /// The labels of a sample.
    pub fn labels(&self, sample: &str) -> impl Iterator<Item = &str> {
        self.samples[sample].keys().map(String::as_str)
    }

    /// The values that a label has.
    pub fn values(&self, sample: &str, label: &str) -> BTreeSet<&str> {
        let values = self.samples[sample].get(label);
        values.into_iter().flatten().map(String::as_str).collect()
    }

    /// All families.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.families.iter().map(String::as_str)
    }

    /// The family of a sample.
    pub fn family(&self, sample: &str) -> Option<&str> {
        let suffixes = ["", "_total", "_bucket", "_count", "_sum", "_info"];
        let names = suffixes.iter().filter_map(|suffix| sample.strip_suffix(suffix));
        names.filter_map(|name| self.families.get(name)).map(String::as_str).next()
    }
}

#[test]
fn an_exposition_is_taken_apart() {
    let exported = Exported::parse(
        "# HELP a What it is.\n\
         # TYPE a counter\n\
         a_total{x=\"1\",y=\"2\"} 3\n\
         a_total{x=\"4\",y=\"2\"} 0\n\
         # TYPE b gauge\n\
         b 5\n\
         # EOF\n",
    );
    assert_eq!(Vec::from_iter(exported.families()), ["a", "b"]);
    assert_eq!(Vec::from_iter(exported.labels("a_total")), ["x", "y"]);
    assert_eq!(exported.values("a_total", "x"), BTreeSet::from(["1", "4"]));
    assert!(exported.has("b") && !exported.has("a"));
    assert_eq!((exported.family("a_total"), exported.family("c")), (Some("a"), None));
}
