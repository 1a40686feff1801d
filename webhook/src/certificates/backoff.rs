//! How long to wait before another attempt.

use std::time::Duration;

/// Delays that grow, within limits, and differ between replicas.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

impl Backoff {
    /// The delay after one more failure: twice the one of before, 30 s at the most, less up to a half.
    pub fn delay(&mut self) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        jittered(doubled.min(LONGEST))
    }

    /// What was tried has worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `longest`, less up to a half.
pub fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_within_limits() {
        let mut backoff = Backoff::default();
        for expect in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let delay = backoff.delay().as_millis();
            assert!((expect / 2..=expect).contains(&delay), "{delay} instead of {expect}");
        }
        (0..100).for_each(|_| assert!(backoff.delay() <= LONGEST));
        backoff.reset();
        assert!(backoff.delay() <= FIRST);
    }
}
