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
}

impl Served {
    /// Nothing to show yet.
    pub fn new(clock: Clock) -> Self {
        let state = State { certified: None, readiness: Readiness::NoCertificate };
        Self { clock, state: RwLock::new(state) }
    }

    /// Shows `pair` from now on. Clients trust it until its end.
    pub fn show(&self, pair: &Pair) {
        self.set(Some(pair), Readiness::Until(pair.validity().not_after));
    }

    /// Shows `pair` from now on.
    pub fn set(&self, pair: Option<&Pair>, readiness: Readiness) {
        let state = State { certified: pair.map(Pair::certified_key), readiness };
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
        match self.state.read().unwrap_or_else(PoisonError::into_inner).readiness {
            Readiness::NoCertificate => Err(Unready::NoCertificate),
            Readiness::NotPublished => Err(Unready::NotPublished),
            Readiness::Until(end) if now > end => Err(Unready::Expired(end)),
            Readiness::Until(_) => Ok(()),
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
