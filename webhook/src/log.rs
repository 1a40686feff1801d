//! The form of log lines.

use std::panic::PanicHookInfo;

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::admission::text::one_line;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object in each line.
    Json,
}

impl Format {
    /// The value of `--log-format`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Characters of a panic's message in a log line, at the most.
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
    let targets = Targets::new()
        .with_default(level)
        .with_targets([("kube_client", LevelFilter::OFF), ("kube_runtime", LevelFilter::OFF)]);
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

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::warn;

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
