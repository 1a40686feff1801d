//! A certificate chain and the key of its first certificate.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::Validity;

/// A server's certificate chain, leaf first, and the leaf's private key. The key is known to fit.
#[derive(Clone, Debug)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    validity: Validity,
    serial: String,
    has_names: bool,
}

/// What is odd about a certificate that may be right nevertheless. API servers refuse to call a server
/// that shows it, if it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Its time has not come, or this machine's clock is slow.
    #[error("the certificate is not valid before {0}; check this machine's clock")]
    NotYetValid(OffsetDateTime),
    /// No DNS name and no IP address among its subject alternative names. The common name doesn't
    /// count (RFC 9525).
    #[error(
        "the certificate has no subject alternative name; issue it for the name of the Service"
    )]
    NoNames,
}

/// Why a chain and a key are no pair.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The chain has no certificate.
    #[error("the chain holds no certificate")]
    NoCertificate,
    /// The leaf is not an X.509 certificate.
    #[error("the first certificate can't be read: {0}")]
    Certificate(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// The leaf is an X.509 certificate that rustls, stricter than others, doesn't take.
    #[error("the first certificate can't be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// The key belongs to another certificate.
    #[error("the key is not the one that the first certificate was issued for")]
    Mismatch,
    /// The key is of a kind that rustls can't sign with, or damaged.
    #[error("the key can't be used: {0}")]
    Key(#[source] rustls::Error),
}

impl Pair {
    /// Joins a chain (leaf first) and a key.
    ///
    /// # Errors
    ///
    /// When the chain is empty or unreadable, or the key doesn't fit.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, PairError> {
        let leaf = chain.first().ok_or(PairError::NoCertificate)?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(PairError::Certificate)?;
        let validity = Validity::from(leaf.validity());
        let serial = leaf.raw_serial_as_string();
        let has_names = has_names(&leaf);
        let certified =
            CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => PairError::Mismatch,
                error @ rustls::Error::InvalidCertificate(_) => PairError::Unusable(error),
                other => PairError::Key(other),
            })?;
        // A damaged key may be read, and have the public half that it should, and still sign nothing.
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let signer = certified.key.choose_scheme(&schemes);
        let signer = signer.ok_or_else(|| {
            PairError::Key(rustls::Error::General("no known kind of signature".into()))
        })?;
        signer.sign(b"sfunnel").map_err(PairError::Key)?;
        Ok(Self { certified: Arc::new(certified), validity, serial, has_names })
    }

    /// What rustls presents to a client.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// From when until when the leaf is good.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The leaf's serial number, as `openssl` and browsers show it.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What is odd about the leaf at `now`.
    pub fn doubts(&self, now: OffsetDateTime) -> Vec<Doubt> {
        let not_before = self.validity.not_before;
        let early = (now < not_before).then_some(Doubt::NotYetValid(not_before));
        let nameless = (!self.has_names).then_some(Doubt::NoNames);
        early.into_iter().chain(nameless).collect()
    }
}

fn has_names(leaf: &X509Certificate<'_>) -> bool {
    let names = leaf.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| {
        let names = &names.value.general_names;
        names.iter().any(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_)))
    })
}
