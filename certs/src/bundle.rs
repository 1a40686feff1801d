//! The CA certificates that callers trust.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::Certificate;

/// The CA certificates that callers should trust, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle(Vec<Certificate>);

/// What callers were told to trust: the `caBundle` of every webhook in a configuration, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// There is no configuration, and so nobody calls.
    Absent,
    /// The certificates in each webhook's `caBundle`. A bundle that can't be read has none.
    Bundles(Vec<Vec<CertificateDer<'static>>>),
}

impl FromIterator<Certificate> for Bundle {
    fn from_iter<I: IntoIterator<Item = Certificate>>(certificates: I) -> Self {
        let mut bundle = Self::default();
        for certificate in certificates {
            if !bundle.0.contains(&certificate) {
                bundle.0.push(certificate);
            }
        }
        bundle
    }
}

impl Bundle {
    /// The certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }

    /// The value of `caBundle`.
    pub fn pem(&self) -> String {
        self.0.iter().map(Certificate::pem).collect()
    }

    fn equals(&self, ders: &[CertificateDer<'_>]) -> bool {
        self.0.len() == ders.len() && self.0.iter().all(|ours| ders.contains(ours.der()))
    }
}

impl Published {
    /// What is in these values of `caBundle`.
    pub fn new<'a>(bundles: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let read = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
        Self::Bundles(bundles.into_iter().map(|pem| read(pem).unwrap_or_default()).collect())
    }

    /// What is there after `bundle` was published to all webhooks of the configuration.
    pub fn updated(&self, bundle: &Bundle) -> Self {
        let ders = || bundle.0.iter().map(|certificate| certificate.der().clone()).collect();
        match self {
            Self::Absent => Self::Absent,
            Self::Bundles(bundles) => Self::Bundles(bundles.iter().map(|_| ders()).collect()),
        }
    }

    /// Whether whoever calls trusts `certificate`.
    pub fn carries(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Absent => true,
            Self::Bundles(bundles) => {
                bundles.iter().all(|bundle| bundle.contains(certificate.der()))
            }
        }
    }

    /// Whether every webhook has just this bundle, in whatever order.
    pub fn is(&self, bundle: &Bundle) -> bool {
        match self {
            Self::Absent => true,
            Self::Bundles(bundles) => bundles.iter().all(|ders| bundle.equals(ders)),
        }
    }

    /// All CA certificates that some caller trusts.
    pub fn certificates(&self) -> impl Iterator<Item = Certificate> {
        let bundles = match self {
            Self::Absent => &[][..],
            Self::Bundles(bundles) => bundles,
        };
        bundles.iter().flatten().filter_map(|der| Certificate::from_der(der.clone()).ok())
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::{Authority, Validity};

    fn certificate() -> Certificate {
        let validity = Validity::starting(OffsetDateTime::UNIX_EPOCH, Duration::days(20_000));
        Authority::new("CA", validity).unwrap().certificate().clone()
    }

    #[test]
    fn a_bundle_is_recognised_in_any_order_and_in_every_webhook() {
        let (one, two) = (certificate(), certificate());
        let bundle: Bundle = [one.clone(), two.clone(), one.clone()].into_iter().collect();
        assert_eq!(bundle.certificates(), [one.clone(), two.clone()]);

        let pem = bundle.pem();
        let turned = two.pem() + "\n" + &one.pem();
        let published = Published::new([pem.as_bytes(), turned.as_bytes()]);
        assert!(published.is(&bundle) && published.carries(&one) && published.carries(&two));

        for other in [b"".as_slice(), b"garbage", one.pem().as_bytes()] {
            let published = Published::new([pem.as_bytes(), other]);
            assert!(!published.is(&bundle));
            assert!(!published.carries(&two));
            assert!(published.updated(&bundle).is(&bundle));
        }
        let more = pem.clone() + &certificate().pem();
        assert!(!Published::new([more.as_bytes()]).is(&bundle));
    }

    #[test]
    fn nobody_distrusts_when_nobody_calls() {
        let certificate = certificate();
        let bundle = [certificate.clone()].into_iter().collect();
        assert!(Published::Absent.is(&bundle) && Published::Absent.carries(&certificate));
        assert_eq!(Published::Absent.certificates().count(), 0);
    }
}
