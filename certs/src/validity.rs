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
    /// From `now`, less [`CLOCK_SKEW`], to `now + lifetime`.
    pub fn starting(now: OffsetDateTime, lifetime: Duration) -> Self {
        Self { not_before: now - CLOCK_SKEW, not_after: now + lifetime }
    }

    /// Whether `now` lies within.
    pub fn contains(&self, now: OffsetDateTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// The part of `self` that lies within `other`: a certificate must not outlive its issuer's.
    pub(crate) fn within(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
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
