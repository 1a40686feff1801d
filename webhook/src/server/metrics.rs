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
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::admission::decision::Decision;
use crate::admission::endpoint::Webhook;
use crate::admission::warning::Warning;
use crate::certificates::resolver::{CertResolver, Facts};

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
const STATUSES: [u16; 8] = [400, 404, 405, 408, 413, 415, 500, 503];

/// Why the server closes connections: the TLS handshake or the first request's header took too long, no other
/// request came, there was no room for another connection.
const CLOSE_REASONS: [&str; 4] = ["handshake", "header", "idle", "room"];

/// Why there is no TLS on a connection: it took too long, the client left without a word, or it doesn't trust
/// the certificate or speaks something else.
const HANDSHAKE_FAILURES: [&str; 3] = ["timeout", "closed", "failed"];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Everything that is counted and measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decisions: Family<Labels<3>, Counter>,
    refusals: Family<[(&'static str, u16); 1], Counter>,
    warnings: Family<Labels<1>, Counter>,
    review_duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
    reviews_in_flight: Gauge,
    connections: Gauge,
    connections_accepted: Counter,
    connections_closed: Family<Labels<1>, Counter>,
    handshake_failures: Family<Labels<1>, Counter>,
    panics: Counter,
}

impl Metrics {
    /// Nothing has happened yet. What there is to know of the certificate comes from `resolver`.
    pub fn new(resolver: Arc<CertResolver>) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let into = &mut registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        into.register("build", "The version that runs", build);
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let review_duration = Family::new_with_constructor(histogram);
        let help = "From a request's header to its answer, where there was a decision";
        into.register("review_duration_seconds", help, review_duration.clone());
        into.register_collector(Box::new(Certificate(resolver)));
        let metrics = Self {
            decisions: add(into, "decisions", "Reviews that were decided"),
            refusals: add(into, "refusals", "Requests that got no decision but an HTTP status"),
            warnings: add(into, "warnings", "Reviews with a warning of this kind"),
            review_duration,
            reviews_in_flight: add(into, "reviews_in_flight", "Requests whose answer is awaited"),
            connections: add(
                into,
                "connections",
                "Open connections to the TLS port, handshakes among them",
            ),
            connections_accepted: add(
                into,
                "connections_accepted",
                "Connections to the TLS port that were accepted",
            ),
            connections_closed: add(
                into,
                "connections_closed",
                "Connections to both ports that the server closed by itself",
            ),
            handshake_failures: add(
                into,
                "tls_handshake_failures",
                "TLS handshakes that came to nothing",
            ),
            panics: add(into, "panics", "Handlers that panicked; the requests got status 500"),
            registry,
        };
        metrics.start_at_zero();
        metrics
    }

    /// Starts known series at 0, so that `rate()` sees the first event.
    fn start_at_zero(&self) {
        for status in STATUSES {
            self.refusals.get_or_create(&[("status", status)]).inc_by(0);
        }
        for kind in Warning::CODES {
            self.warnings.get_or_create(&[("kind", kind)]).inc_by(0);
        }
        for reason in CLOSE_REASONS {
            self.connections_closed.get_or_create(&[("reason", reason)]).inc_by(0);
        }
        for reason in HANDSHAKE_FAILURES {
            self.handshake_failures.get_or_create(&[("reason", reason)]).inc_by(0);
        }
        for webhook in [Webhook::Mutate, Webhook::Validate] {
            drop(self.review_duration.get_or_create_owned(&[("webhook", webhook.code())]));
        }
    }

    /// All of it, as [`MEDIA_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }

    /// A review was decided, `duration` after its request's header had come.
    pub fn decided(&self, webhook: Webhook, decision: &Decision, duration: Duration) {
        let webhook = ("webhook", webhook.code());
        let verdict = &decision.verdict;
        let labels = [webhook, ("decision", verdict.code()), ("reason", verdict.reason())];
        self.decisions.get_or_create(&labels).inc();
        let kinds: BTreeSet<_> = decision.warnings.iter().map(Warning::code).collect();
        for kind in kinds {
            self.warnings.get_or_create(&[("kind", kind)]).inc();
        }
        self.review_duration.get_or_create(&[webhook]).observe(duration.as_secs_f64());
    }

    /// A request got no decision but this status.
    pub fn refused(&self, status: u16) {
        self.refusals.get_or_create(&[("status", status)]).inc();
    }

    /// A request came. It is in flight until the guard is dropped.
    pub fn in_flight(&self) -> Up {
        Up::new(&self.reviews_in_flight)
    }

    /// The TLS port has accepted a connection. It is open until the guard is dropped.
    pub fn connected(&self) -> Up {
        self.connections_accepted.inc();
        Up::new(&self.connections)
    }

    /// The server has closed a connection by itself, for one of [`CLOSE_REASONS`].
    pub fn closed(&self, reason: &'static str) {
        self.connections_closed.get_or_create(&[("reason", reason)]).inc();
    }

    /// A TLS handshake came to nothing, for one of [`HANDSHAKE_FAILURES`].
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshake_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// A handler has panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }
}

/// Registers a new metric. Names of counters get the suffix `_total`.
fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
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
struct Certificate(Arc<CertResolver>);

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
