//! What is logged, and in which form.

use std::fmt::Display;
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Config;
use crate::decision::{Decision, Verdict};
use crate::review::Review;
use crate::settings::SecretName;
use crate::text::one_line;
use crate::warning::within_limits;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object in each line.
    Json,
}

/// Characters of a stranger's text in a log line, at the most.
const MAX: usize = 512;

/// Sends log lines, panics among them, to standard error.
pub fn init(format: Format, level: LevelFilter) {
    subscriber(format, level, std::io::stderr).init();
    std::panic::set_hook(Box::new(panicked));
}

/// Writes log lines.
pub fn subscriber<W>(
    format: Format,
    level: LevelFilter,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // kube's client logs answers that it can't read as a whole, and a Secret may be among them. Its errors
    // come back to us and have lines of ours.
    let targets = Targets::new().with_default(level).with_target("kube_client", LevelFilter::OFF);
    let subscriber = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    match format {
        Format::Text => Box::new(subscriber.with(lines)),
        Format::Json => Box::new(subscriber.with(lines.json().flatten_event(true))),
    }
}

/// The panic hook: one line for each panic, in the form of all others.
pub fn panicked(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("without a message");
    let location = info.location().map(tracing::field::display);
    error!(location, panic = one_line(message, MAX), "panicked");
}

/// One line with what was configured.
pub fn starting(config: &Config) {
    let Config { tls, admission, options } = config;
    let settings = &admission.settings;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        loader_image = settings.loader_image.as_str(),
        loader_pull_policy = settings.loader_pull_policy.as_str(),
        loader_pull_secret = settings.loader_pull_secret.as_ref().map(SecretName::as_str),
        loader_cpu_request = %settings.loader_cpu_request,
        loader_cpu_limit = %settings.loader_cpu_limit,
        loader_memory_request = %settings.loader_memory_request,
        loader_memory_limit = %settings.loader_memory_limit,
        loader_privileged = settings.loader_privileged,
        deny_runtime_class = settings.deny_runtime_class.join(","),
        tls = %tls,
        listen = %options.listen,
        health_listen = %options.health_listen,
        max_body_bytes = admission.max_body,
        max_concurrent_reviews = admission.max_reviews,
        max_connections = options.max_connections,
        handshake_timeout_s = options.handshake_timeout.as_secs(),
        header_timeout_s = options.header_timeout.as_secs(),
        body_timeout_s = admission.body_timeout.as_secs(),
        drain_delay_s = options.drain_delay.as_secs(),
        shutdown_timeout_s = options.shutdown_timeout.as_secs(),
        "starting"
    );
}

/// One line for each decision.
pub(crate) fn decision(review: &Review, decision: &Decision, duration: Duration) {
    let warnings = || within_limits(&decision.warnings).join("; ");
    let detail = match &decision.verdict {
        Verdict::Inject(_) | Verdict::Valid => warnings(),
        Verdict::Skip(reason) if decision.warnings.is_empty() => reason.to_string(),
        Verdict::Skip(reason) => format!("{reason}; {}", warnings()),
        Verdict::Deny(reason) => reason.summary(),
    };
    info!(
        decision = decision.verdict.code(),
        reason = decision.verdict.reason(),
        webhook = review.endpoint.webhook.code(),
        namespace = one_line(&review.namespace, MAX),
        kind = review.kind,
        name = one_line(&review.name, MAX),
        owner = review.owner.as_deref().map(|owner| one_line(owner, MAX)),
        uid = one_line(&review.uid, MAX),
        dry_run = review.dry_run,
        duration_us = duration.as_micros() as u64,
        detail = one_line(&detail, MAX),
        "reviewed"
    );
}

/// One line for each request that gets no decision.
pub(crate) fn refusal(status: u16, error: &dyn Display) {
    warn!(status, error = one_line(&error.to_string(), MAX), "refused");
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn answers_of_the_cluster_are_not_logged() {
        for format in [Format::Text, Format::Json] {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = subscriber(format, LevelFilter::TRACE, writer);
            tracing::subscriber::with_default(subscriber, || {
                warn!(target: "kube_client::client", "a whole Secret");
                warn!("ours");
            });
            let lines = lines.take();
            assert!(lines.contains("ours") && !lines.contains("Secret"), "{lines}");
        }
    }

    /// Keeps log lines.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// What was logged since the last time.
        pub(crate) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }
}
