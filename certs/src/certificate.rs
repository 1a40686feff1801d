//! A CA's certificate, without its key: what clients trust.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::{PemError, Validity};

/// A CA's certificate. Two are equal when their bytes are.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    validity: Validity,
    serial: String,
    common_name: String,
}

fn broken(error: pem::Error) -> CertificateError {
    CertificateError::Pem(error.into())
}

/// Why something is no CA certificate. The texts follow the name of what was read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No PEM certificate, or broken PEM.
    #[error("is no PEM certificate: {0}")]
    Pem(#[source] PemError),
    /// Not X.509.
    #[error("can't be read: {0}")]
    Certificate(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// The certificate may not sign others (RFC 5280, sections 4.2.1.3 and 4.2.1.9).
    #[error("is not a CA's: it lacks the CA flag or the key usage keyCertSign")]
    NotAuthority,
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// When it isn't X.509, or not a CA's.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(CertificateError::Certificate)?;
        let may_sign =
            parsed.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign());
        if !parsed.is_ca() || !may_sign {
            return Err(CertificateError::NotAuthority);
        }
        let validity = Validity::from(parsed.validity());
        let serial = parsed.raw_serial_as_string();
        let common_name = parsed.subject().iter_common_name().next();
        let common_name =
            common_name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        Ok(Self { der, validity, serial, common_name })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not a CA's.
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_slice(text).map_err(broken)?;
        Self::from_der(der)
    }

    /// Reads all certificates of a PEM text, which may have none.
    ///
    /// # Errors
    ///
    /// When one is broken, or not a CA's.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        CertificateDer::pem_slice_iter(text)
            .map(|der| Self::from_der(der.map_err(broken)?))
            .collect()
    }

    /// The certificate as PEM: what belongs in a webhook configuration's `caBundle`.
    pub fn pem(&self) -> String {
        let config = pem_writer::EncodeConfig::new().set_line_ending(pem_writer::LineEnding::LF);
        pem_writer::encode_config(&pem_writer::Pem::new("CERTIFICATE", self.der.to_vec()), config)
    }

    /// The certificate as it is signed.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// From when until when it is good.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The serial number, as `openssl` and browsers show it.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The subject's common name, or nothing.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}
