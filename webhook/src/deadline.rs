//! Until when an answer is of use.

use std::time::Duration;

use tokio::time::Instant;

/// Until when an answer is of use. API servers say with each request how long they wait, rounded up to whole
/// seconds (`?timeout=5s`, mostly the webhook's `timeoutSeconds`;
/// `k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`). One that has hung up hears
/// neither a decision nor what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<End>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// When the client hangs up.
    at: Instant,
    /// What the answer needs for its way.
    margin: Duration,
}

/// For the way of the answer, at the most; of short times, it is a quarter.
const MARGIN: Duration = Duration::from_millis(500);

impl Deadline {
    /// That of a request whose header has come now, by the query of its URL.
    pub fn new(query: Option<&str>) -> Self {
        let mut pairs = query.unwrap_or_default().split('&');
        let timeout = pairs.find_map(|pair| pair.strip_prefix("timeout=")?.strip_suffix('s'));
        // What nobody but a stranger would write is no deadline.
        let seconds = timeout.and_then(|seconds| seconds.parse::<u8>().ok());
        Self(seconds.map(|seconds| {
            let timeout = Duration::from_secs(seconds.into());
            End { at: Instant::now() + timeout, margin: MARGIN.min(timeout / 4) }
        }))
    }

    /// What is left for the work, but no more than `limit`.
    pub fn within(self, limit: Duration) -> Duration {
        self.0.map_or(limit, |end| limit.min(end.left().saturating_sub(end.margin)))
    }

    /// For how long an answer may still be held back, but no more than `limit`: half of what is left.
    pub fn holding_back(self, limit: Duration) -> Duration {
        self.0.map_or(limit, |end| limit.min(end.left() / 2))
    }
}

impl End {
    fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn left(query: &str) -> Duration {
        Deadline::new(Some(query)).within(MINUTE)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_some_time_for_its_way() {
        assert_eq!(left("timeout=5s"), Duration::from_millis(4500));
        assert_eq!(left("timeout=2s"), Duration::from_millis(1500));
        assert_eq!(left("timeout=1s"), Duration::from_millis(750));
        assert_eq!(left("a=b&timeout=30s&c"), Duration::from_millis(29_500));
        assert_eq!(left("timeout=0s"), Duration::ZERO);

        let deadline = Deadline::new(Some("timeout=5s"));
        let second = Duration::from_secs(1);
        assert_eq!(deadline.within(second), second);
        tokio::time::advance(4 * second).await;
        assert_eq!(deadline.within(second), second / 2);
        assert_eq!(deadline.holding_back(second), second / 2);
        tokio::time::advance(second / 2).await;
        assert_eq!(deadline.within(second), Duration::ZERO);
        assert_eq!(deadline.holding_back(second), second / 4);
        tokio::time::advance(second).await;
        assert_eq!(deadline.holding_back(second), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_one_limits_are_what_they_are() {
        assert_eq!(Deadline::new(None).within(MINUTE), MINUTE);
        assert_eq!(Deadline::new(None).holding_back(MINUTE), MINUTE);
        for query in ["", "timeout", "timeout=", "timeout=5", "timeout=-1s", "timeout=999s", "x=5s"]
        {
            assert_eq!(left(query), MINUTE, "{query}");
        }
    }
}
