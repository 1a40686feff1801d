//! The certificate that clients are shown, and whether they can be served with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use certs::{Pair, Readiness, Validity};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::clock::Clock;

/// The certificate that clients are shown. It can be replaced at any time; connections that are open
/// keep what they were shown.
#[derive(Debug)]
pub struct CertResolver {
    clock: Clock,
    failures: AtomicU64,
    // A handshake computes a signature, for which this lock can be taken a thousand times.
    state: RwLock<State>,
}

#[derive(Clone, Debug)]
struct State {
    certified: Option<Arc<CertifiedKey>>,
    /// Of what is shown.
    validity: Option<Validity>,
    /// Of the CA that issued it, where that is known.
    ca: Option<Validity>,
    readiness: Readiness,
}

/// What there is to know of the certificate that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether clients can be served.
    pub ready: bool,
    /// For how long the certificate is good.
    pub certificate: Option<Validity>,
    /// For how long the CA is good that issued it, where it is known.
    pub ca: Option<Validity>,
    /// How often something went wrong that had to do with certificates.
    pub failures: u64,
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

impl CertResolver {
    /// Nothing to show yet.
    pub fn new(clock: Clock) -> Self {
        let readiness = Readiness::NoCertificate;
        let state = State { certified: None, validity: None, ca: None, readiness };
        Self { clock, failures: AtomicU64::default(), state: RwLock::new(state) }
    }

    /// Shows `pair` from now on, which a CA of this validity has issued. Clients trust it until its end.
    pub fn show(&self, pair: &Pair, ca: Option<Validity>) {
        self.set(Some(pair), ca, Readiness::Until(pair.validity().not_after));
    }

    /// Shows `pair` from now on, which a CA of this validity has issued.
    pub fn set(&self, pair: Option<&Pair>, ca: Option<Validity>, readiness: Readiness) {
        let certified = pair.map(Pair::certified_key);
        let state = State { certified, validity: pair.map(Pair::validity), ca, readiness };
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
            Readiness::Until(_) => match state.validity {
                Some(Validity { not_before, .. }) if now < not_before => {
                    Err(Unready::NotYetValid(not_before))
                }
                _ => Ok(()),
            },
        }
    }

    /// What there is to know now.
    pub fn facts(&self) -> Facts {
        let ready = self.ready().is_ok();
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let failures = self.failures.load(Ordering::Relaxed);
        Facts { ready, certificate: state.validity, ca: state.ca, failures }
    }

    /// Something went wrong that has to do with certificates. What is shown stays.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// What is shown now.
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).certified.clone()
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use certs::{Authority, Name};
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
        let resolver = CertResolver::new(Clock::new(move || *clock.lock().unwrap()));
        assert_eq!(resolver.ready(), Err(Unready::NoCertificate));
        resolver.show(&pair, None);
        let at = |moment| {
            *now.lock().unwrap() = moment;
            resolver.ready()
        };
        assert_eq!(at(start), Ok(()));
        assert_eq!(at(start - Duration::SECOND), Err(Unready::NotYetValid(start)));
        let end = validity.not_after;
        assert_eq!(at(end), Ok(()));
        assert_eq!(at(end + Duration::SECOND), Err(Unready::Expired(end)));
    }
}
