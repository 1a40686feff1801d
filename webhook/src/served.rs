//! The certificate that clients are shown, and whether they can be served with it.

use std::sync::{Arc, PoisonError, RwLock};

use certs::{Pair, Readiness};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::clock::Clock;

/// The certificate that clients are shown. It can be replaced at any time; connections that are open
/// keep what they were shown.
#[derive(Debug)]
pub struct Served {
    clock: Clock,
    // A handshake computes a signature, for which this lock can be taken a thousand times.
    state: RwLock<State>,
}

#[derive(Clone, Debug)]
struct State {
    certified: Option<Arc<CertifiedKey>>,
    /// The first second of what is shown.
    not_before: Option<OffsetDateTime>,
    readiness: Readiness,
}

/// Why clients can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// Nothing to show yet.
    #[error("there is no certificate yet")]
    NoCertificate,
    /// API servers would refuse what is shown.
    #[error("the CA is not in the webhook configuration yet")]
    NotPublished,
    /// API servers refuse what is shown.
    #[error("the certificate expired at {0}")]
    Expired(OffsetDateTime),
    /// API servers refuse what is shown, if their clocks are right.
    #[error("the certificate is not valid before {0}; is the node's clock right?")]
    NotYetValid(OffsetDateTime),
}

impl Served {
    /// Nothing to show yet.
    pub fn new(clock: Clock) -> Self {
        let readiness = Readiness::NoCertificate;
        Self { clock, state: RwLock::new(State { certified: None, not_before: None, readiness }) }
    }

    /// Shows `pair` from now on. Clients trust it until its end.
    pub fn show(&self, pair: &Pair) {
        self.set(Some(pair), Readiness::Until(pair.validity().not_after));
    }

    /// Shows `pair` from now on.
    pub fn set(&self, pair: Option<&Pair>, readiness: Readiness) {
        let not_before = pair.map(|pair| pair.validity().not_before);
        let state = State { certified: pair.map(Pair::certified_key), not_before, readiness };
        // A state is replaced as a whole, so a panic leaves none half-written.
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Whether clients can be served now.
    ///
    /// # Errors
    ///
    /// Why they can't.
    pub fn ready(&self) -> Result<(), Unready> {
        let now = self.clock.now();
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.readiness {
            Readiness::NoCertificate => Err(Unready::NoCertificate),
            Readiness::NotPublished => Err(Unready::NotPublished),
            Readiness::Until(end) if now > end => Err(Unready::Expired(end)),
            Readiness::Until(_) => match state.not_before {
                Some(start) if now < start => Err(Unready::NotYetValid(start)),
                _ => Ok(()),
            },
        }
    }

    /// What is shown now.
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).certified.clone()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use certs::{Authority, Name, Validity};
    use time::Duration;

    use super::*;

    #[test]
    fn readiness_is_for_the_time_of_the_certificate() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let validity = Validity { not_before: start, not_after: start + Duration::HOUR };
        let names = [Name::try_from("localhost").unwrap()];
        let pair = Authority::new("CA", validity).unwrap().issue(&names, validity).unwrap();
        let now = Arc::new(Mutex::new(start));
        let clock = Arc::clone(&now);
        let served = Served::new(Clock::new(move || *clock.lock().unwrap()));
        assert_eq!(served.ready(), Err(Unready::NoCertificate));
        served.show(&pair);
        let at = |moment| {
            *now.lock().unwrap() = moment;
            served.ready()
        };
        assert_eq!(at(start), Ok(()));
        assert_eq!(at(start - Duration::SECOND), Err(Unready::NotYetValid(start)));
        let end = validity.not_after;
        assert_eq!(at(end), Ok(()));
        assert_eq!(at(end + Duration::SECOND), Err(Unready::Expired(end)));
    }
}
