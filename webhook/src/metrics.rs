//! What is counted and measured, for Prometheus.
//!
//! docs/operating.md tells what each one means. Moments are Unix times: how old something is, or how long
//! it still lasts, is for whoever asks to work out.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use certs::Validity;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::connections::Cut;
use crate::decision::Decision;
use crate::endpoint::Webhook;
use crate::served::{Facts, Served};
use crate::warning::Warning;

/// The media type of [`Metrics::encode`]
/// (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "sfunnel_webhook";

/// Upper bounds of the histogram's buckets, in seconds: an ordinary review takes some 100 µs, and API
/// servers give up after 5 s.
const BUCKETS: [f64; 16] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3,
    1.0, 2.5, 5.0,
];

/// Statuses of requests that get no decision.
const STATUSES: [u16; 10] = [400, 404, 405, 408, 411, 413, 415, 499, 500, 503];

/// Everything that is counted and measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    refusals: Family<StatusLabels, Counter>,
    warnings: Family<WarningLabels, Counter>,
    review_duration: Family<WebhookLabels, Histogram, fn() -> Histogram>,
    reviews_in_flight: Gauge,
    connections: Gauge,
    connections_total: Counter,
    connections_cut: Family<ReasonLabels, Counter>,
    handshake_failures: Family<ReasonLabels, Counter>,
    panics: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabels {
    webhook: &'static str,
    decision: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WarningLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WebhookLabels {
    webhook: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// Why there is no TLS on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client left without a word.
    Closed,
    /// The client doesn't trust the certificate, or speaks something else.
    Failed,
}

impl HandshakeFailure {
    const ALL: [Self; 3] = [Self::Timeout, Self::Closed, Self::Failed];

    const fn code(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Nothing has happened yet. What is said of the certificate comes from `served`.
    pub fn new(served: Arc<Served>) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            decisions: Family::default(),
            refusals: Family::default(),
            warnings: Family::default(),
            review_duration: Family::new_with_constructor(histogram),
            reviews_in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_total: Counter::default(),
            connections_cut: Family::default(),
            handshake_failures: Family::default(),
            panics: Counter::default(),
        };
        metrics.start_at_zero();
        metrics.registered(served)
    }

    /// A series that begins with its first event has no rate for it: what is known in advance is there from
    /// the start.
    fn start_at_zero(&self) {
        for status in STATUSES {
            self.refusals.get_or_create(&StatusLabels { status }).inc_by(0);
        }
        for kind in Warning::CODES {
            self.warnings.get_or_create(&WarningLabels { kind }).inc_by(0);
        }
        for cut in Cut::ALL {
            self.connections_cut.get_or_create(&ReasonLabels { reason: cut.code() }).inc_by(0);
        }
        for failure in HandshakeFailure::ALL {
            let labels = ReasonLabels { reason: failure.code() };
            self.handshake_failures.get_or_create(&labels).inc_by(0);
        }
        for webhook in [Webhook::Mutate, Webhook::Validate] {
            let labels = WebhookLabels { webhook: webhook.code() };
            drop(self.review_duration.get_or_create_owned(&labels));
        }
    }

    fn registered(mut self, served: Arc<Served>) -> Self {
        let registry = &mut self.registry;
        let build = Info::new(BuildLabels { version: env!("CARGO_PKG_VERSION") });
        registry.register("build", "The version that runs", build);
        registry.register("decisions", "Reviews that were decided", self.decisions.clone());
        let help = "Requests that got no decision but an HTTP status";
        registry.register("refusals", help, self.refusals.clone());
        let help = "Reviews with a warning of this kind";
        registry.register("warnings", help, self.warnings.clone());
        let help = "From a request's header to its answer, where there was a decision";
        registry.register("review_duration_seconds", help, self.review_duration.clone());
        let help = "Requests whose answer is awaited";
        registry.register("reviews_in_flight", help, self.reviews_in_flight.clone());
        let help = "Open connections to the TLS port, handshakes among them";
        registry.register("connections", help, self.connections.clone());
        // As counters they are called sfunnel_webhook_connections_accepted_total and so on.
        let help = "Connections to the TLS port that were accepted";
        registry.register("connections_accepted", help, self.connections_total.clone());
        let help =
            "Connections to both ports that the server ended, as it waited too long for the client";
        registry.register("connections_cut", help, self.connections_cut.clone());
        let help = "TLS handshakes that came to nothing";
        registry.register("tls_handshake_failures", help, self.handshake_failures.clone());
        let help = "Handlers that panicked; the requests got status 500";
        registry.register("panics", help, self.panics.clone());
        registry.register_collector(Box::new(Certificate(served)));
        self
    }

    /// All of it, as [`MEDIA_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }

    /// A review was decided, `duration` after its request's header had come.
    pub fn decided(&self, webhook: Webhook, decision: &Decision, duration: Duration) {
        let webhook = webhook.code();
        let (verdict, reason) = (decision.verdict.code(), decision.verdict.reason());
        let labels = DecisionLabels { webhook, decision: verdict, reason };
        self.decisions.get_or_create(&labels).inc();
        let kinds: BTreeSet<_> = decision.warnings.iter().map(Warning::code).collect();
        for kind in kinds {
            self.warnings.get_or_create(&WarningLabels { kind }).inc();
        }
        let seconds = duration.as_secs_f64();
        self.review_duration.get_or_create(&WebhookLabels { webhook }).observe(seconds);
    }

    /// A request got no decision but this status.
    pub fn refused(&self, status: u16) {
        self.refusals.get_or_create(&StatusLabels { status }).inc();
    }

    /// A request came. It is in flight until the guard is dropped.
    pub fn in_flight(&self) -> Up {
        Up::new(&self.reviews_in_flight)
    }

    /// The TLS port has accepted a connection. It is open until the guard is dropped.
    pub fn connected(&self) -> Up {
        self.connections_total.inc();
        Up::new(&self.connections)
    }

    /// The server has ended a connection.
    pub fn cut(&self, cut: Cut) {
        self.connections_cut.get_or_create(&ReasonLabels { reason: cut.code() }).inc();
    }

    /// A TLS handshake came to nothing.
    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.handshake_failures.get_or_create(&ReasonLabels { reason: failure.code() }).inc();
    }

    /// A handler has panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }
}

/// A gauge that is one higher until this is dropped.
#[derive(Debug)]
pub struct Up(Gauge);

impl Up {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Looks at the certificate when it is asked.
#[derive(Debug)]
struct Certificate(Arc<Served>);

impl Collector for Certificate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Facts { ready, certificate, ca, failures } = self.0.facts();
        let help = "Attempts to read, agree on, publish or renew certificates that failed";
        put(&mut encoder, "certificate_failures", help, &ConstCounter::new(failures))?;
        let mut gauge = |name: &str, help: &str, value: i64| {
            put(&mut encoder, name, help, &ConstGauge::new(value))
        };
        gauge("ready", "1 if API servers can be served, as /readyz says", ready.into())?;
        if let Some(Validity { not_after, .. }) = certificate {
            let help = "End of the certificate in use";
            gauge("certificate_expiry_timestamp_seconds", help, not_after.unix_timestamp())?;
        }
        if let Some(Validity { not_before, not_after }) = ca {
            let help = "Start of the CA that issued it";
            gauge("ca_created_timestamp_seconds", help, not_before.unix_timestamp())?;
            let help = "End of the CA that issued it";
            gauge("ca_expiry_timestamp_seconds", help, not_after.unix_timestamp())?;
        }
        Ok(())
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
