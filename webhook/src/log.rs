//! What is logged, and in which form.

use std::fmt::Display;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{info, warn};

use crate::decision::Decision;
use crate::review::Review;
use crate::text::one_line;

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

/// Sends log lines to standard error.
pub fn init(format: Format, level: LevelFilter) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match format {
        Format::Text => subscriber.init(),
        Format::Json => subscriber.json().flatten_event(true).init(),
    }
}

/// One line for each decision.
pub(crate) fn decision(review: &Review, decision: &Decision, duration: Duration) {
    let (verdict, reason, detail) = match decision {
        Decision::Skip(reason) => ("skipped", reason.code(), reason.to_string()),
        Decision::Patch(_, warnings) => {
            let lines: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            ("patched", "annotated", lines.join("; "))
        }
        Decision::Deny(reason) => ("denied", reason.code(), reason.to_string()),
    };
    info!(
        decision = verdict,
        reason,
        namespace = one_line(&review.namespace, MAX),
        pod = one_line(&review.name, MAX),
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
