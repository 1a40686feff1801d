//! How long answers took, and which didn't come.

use std::time::{Duration, Instant};

/// A request of a client that means well.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What kind of request.
    pub series: &'static str,
    /// When the client wanted to send it.
    pub at: Instant,
    /// From then until the answer was there.
    pub took: Duration,
    /// The status of the answer, or what went wrong.
    pub outcome: Result<u16, String>,
}

/// The samples of one phase.
pub fn between(samples: &[Sample], from: Instant, until: Instant) -> Vec<Sample> {
    samples.iter().filter(|sample| (from..until).contains(&sample.at)).cloned().collect()
}

/// The samples of one series.
pub fn of<'a>(samples: &'a [Sample], series: &'a str) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(move |sample| sample.series == series)
}

/// The time within which 99 of 100 had their answer.
pub fn p99<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Duration {
    quantile(samples, 99)
}

/// The time within which half of them had their answer.
pub fn p50<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Duration {
    quantile(samples, 50)
}

fn quantile<'a>(samples: impl IntoIterator<Item = &'a Sample>, percent: usize) -> Duration {
    let mut times: Vec<_> = samples.into_iter().map(|sample| sample.took).collect();
    assert!(!times.is_empty(), "nothing was measured");
    times.sort_unstable();
    times[(times.len() * percent).div_ceil(100) - 1]
}

/// The failed ones, for people; nothing when there are none.
pub fn failures(samples: &[Sample], start: Instant) -> Option<String> {
    let failed: Vec<_> = samples.iter().filter(|sample| sample.outcome != Ok(200)).collect();
    if failed.is_empty() {
        return None;
    }
    let mut text = format!("{} of {} failed", failed.len(), samples.len());
    for Sample { series, at, took, outcome } in failed.iter().take(10) {
        let at = at.saturating_duration_since(start);
        text += &format!("\n  at {at:.1?}, {series}, after {took:.3?}: {outcome:?}");
    }
    Some(text)
}
