//! What both servers show.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

/// A certificate, its key and its CA, as files. They vanish with this value.
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// One for 127.0.0.1, of a CA of its own, as a Secret would hold it.
    pub fn new() -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_certificate = ca.self_signed(&ca_key)?;

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key))?;

        let this = Self { folder: tempfile::tempdir()? };
        fs::write(this.ca(), ca_certificate.pem())?;
        fs::write(this.certificate(), certificate.pem())?;
        fs::write(this.key(), key.serialize_pem())?;
        Ok(this)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// For clients to trust.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// The server's.
    pub fn certificate(&self) -> PathBuf {
        self.file("tls.crt")
    }

    /// The server's.
    pub fn key(&self) -> PathBuf {
        self.file("tls.key")
    }
}
