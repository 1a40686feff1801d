//! From when until when a certificate is good.

use time::{Duration, OffsetDateTime};

/// How far a certificate's start lies before its issue, so that a peer whose clock is slow accepts it.
pub const CLOCK_SKEW: Duration = Duration::minutes(5);

/// From when until when a certificate is good, both ends included (RFC 5280, section 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: OffsetDateTime,
    /// The last second.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From `now`, less [`CLOCK_SKEW`], to `now + lifetime`, in whole seconds as certificates have them.
    pub fn starting(now: OffsetDateTime, lifetime: Duration) -> Self {
        let now = now.truncate_to_second();
        Self { not_before: now.saturating_sub(CLOCK_SKEW), not_after: now.saturating_add(lifetime) }
    }

    /// Whether `now` lies within.
    pub fn contains(&self, now: OffsetDateTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether its time is over.
    pub fn expired(&self, now: OffsetDateTime) -> bool {
        now > self.not_after
    }

    /// The first second after it. The last one that a certificate can have, in the year 9999, has none:
    /// certificates that don't end bear it (RFC 5280, section 4.1.2.5).
    pub(crate) fn over(&self) -> OffsetDateTime {
        self.not_after.saturating_add(Duration::SECOND)
    }

    /// When two thirds of the life are over: time for the successor. What begins [`CLOCK_SKEW`] before
    /// its issue, as [`Self::starting`] makes it, lives from its issue.
    pub fn renewal(&self) -> OffsetDateTime {
        self.not_after.saturating_sub(self.lifetime() / 3)
    }

    /// When five sixths of the life are over: the successor is late, and has to be taken as it is.
    pub fn urgency(&self) -> OffsetDateTime {
        self.not_after.saturating_sub(self.lifetime() / 6)
    }

    fn lifetime(&self) -> Duration {
        (self.not_after - self.not_before - CLOCK_SKEW).max(Duration::ZERO)
    }

    /// The same, but over by `end` at the latest: a certificate must not outlive its issuer's.
    pub(crate) fn until(self, end: OffsetDateTime) -> Self {
        Self { not_after: self.not_after.min(end), ..self }
    }
}

impl From<&x509_parser::certificate::Validity> for Validity {
    fn from(validity: &x509_parser::certificate::Validity) -> Self {
        Self {
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_counted_from_the_issue() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(1_700_000_000_900);
        let validity = Validity::starting(now, Duration::minutes(1));
        let start = OffsetDateTime::UNIX_EPOCH + Duration::seconds(1_700_000_000);
        assert_eq!(validity.not_before, start - CLOCK_SKEW);
        assert_eq!(validity.renewal(), start + Duration::seconds(40));
        assert_eq!(validity.urgency(), start + Duration::seconds(50));
        assert_eq!(validity.not_after, start + Duration::seconds(60));
        assert!(!validity.expired(validity.not_after));
        assert!(validity.expired(validity.not_after + Duration::SECOND));
    }

    /// Foreign certificates may be shorter than the skew.
    #[test]
    fn what_lives_shorter_than_the_skew_is_renewed_at_its_end() {
        let not_before = OffsetDateTime::UNIX_EPOCH;
        let not_after = not_before + Duration::MINUTE;
        assert_eq!(Validity { not_before, not_after }.renewal(), not_after);
    }
}
