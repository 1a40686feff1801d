//! A certificate authority in memory.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid::Oid;
use x509_parser::prelude::FromDer;

use crate::{Certificate, CertificateError, Name, Pair, PairError, Validity};

/// A CA: its certificate and the key that signs server certificates.
///
/// Copies share the key.
#[derive(Clone, Debug)]
pub struct Authority {
    certificate: Certificate,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

/// Why a CA can't be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library that writes certificates refuses.
    #[error("issuing a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A server certificate without a name is good for nothing.
    #[error("a server certificate needs at least one name")]
    NoName,
    /// The CA certificate is none.
    #[error("the CA certificate {0}")]
    Certificate(#[from] CertificateError),
    /// The text of the CA key is no PEM key. What the library says of it may quote the key.
    #[error("the CA key is no PEM private key")]
    Key,
    /// The CA key belongs to another certificate.
    #[error("the CA key is not the one of the CA certificate")]
    Mismatch,
    /// The subject of the CA certificate is encoded otherwise than certificates are written.
    #[error("the subject of the CA certificate is encoded in a way that can't be repeated")]
    Subject,
    /// Clients could not trust the CA certificate.
    #[error("the CA certificate can't be a client's trust anchor: {0}")]
    NoAnchor(#[source] rustls::Error),
    /// What was issued is no pair.
    #[error("the issued certificate is unusable: {0}")]
    Pair(#[from] PairError),
}

impl Authority {
    /// A new CA with a key of its own.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn new(common_name: &str, validity: Validity) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(common_name, validity);
        // It signs servers' certificates and no further CA's.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?;
        let certificate = Certificate::from_der(certificate.der().clone())?;
        Ok(Self { certificate, issuer: Arc::new(Issuer::new(params, key)) })
    }

    /// A CA from its PEM certificate and its PEM key, as [`Certificate::pem`] and [`Self::key_pem`]
    /// gave them.
    ///
    /// # Errors
    ///
    /// When one can't be read, they don't belong together or the certificate is not a CA's.
    pub fn from_pem(certificate: &[u8], key: &str) -> Result<Self, AuthorityError> {
        let certificate = Certificate::from_pem(certificate)?;
        let key = KeyPair::from_pem(key).map_err(|_| AuthorityError::Key)?;
        let (_, parsed) =
            X509Certificate::from_der(certificate.der()).map_err(CertificateError::Certificate)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Mismatch);
        }
        if !parsed.subject().iter_attributes().all(|attribute| is_writable(attribute.attr_type())) {
            return Err(AuthorityError::Subject);
        }
        // Clients read it more strictly than who signs with its key.
        let anchor = RootCertStore::empty().add(certificate.der().clone());
        anchor.map_err(AuthorityError::NoAnchor)?;
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key)?;
        // Clients look for the issuer of a certificate by the bytes of its name, which are written anew.
        let issued = CertificateParams::default().signed_by(issuer.key(), &issuer)?;
        let (_, issued) =
            X509Certificate::from_der(issued.der()).map_err(CertificateError::Certificate)?;
        if issued.issuer().as_raw() != parsed.subject().as_raw() {
            return Err(AuthorityError::Subject);
        }
        Ok(Self { certificate, issuer: Arc::new(issuer) })
    }

    /// Issues a server certificate with a new key. It doesn't outlive the CA.
    ///
    /// # Errors
    ///
    /// When `names` is empty or a name has no form that a certificate can hold.
    pub fn issue(&self, names: &[Name], validity: Validity) -> Result<Pair, AuthorityError> {
        let first = names.first().ok_or(AuthorityError::NoName)?;
        let mut params = params(&common_name(first), validity.until(self.validity().not_after));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names
            .iter()
            .filter_map(|name| match name {
                ServerName::DnsName(name) => Some(name.as_ref().try_into().map(SanType::DnsName)),
                ServerName::IpAddress(address) => Some(Ok(SanType::IpAddress((*address).into()))),
                // The type is open for kinds to come; none can be asked for by text today.
                _ => None,
            })
            .collect::<Result<_, rcgen::Error>>()?;

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, &*self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Pair::new(vec![leaf.into()], key, &default_provider())?)
    }

    /// The CA certificate, for a client's trust store.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The CA key as PEM (PKCS #8). Whoever has it can pose as the webhook.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// From when until when the CA is good.
    pub fn validity(&self) -> Validity {
        self.certificate.validity()
    }
}

/// Whether the library that writes certificates can write an object identifier; it panics at what is none:
/// without a second arc, a first one above 2, or under 0 and 1 a second one above 39 (ITU-T X.660, 7.6).
fn is_writable(oid: &Oid<'_>) -> bool {
    let Some(mut arcs) = oid.iter() else { return false };
    matches!((arcs.next(), arcs.next()), (Some(0 | 1), Some(0..40)) | (Some(2), Some(_)))
}

fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// The subject's common name is for people; clients look at the subject alternative names alone. It
/// may have 64 characters (RFC 5280, ub-common-name).
fn common_name(name: &Name) -> String {
    name.to_str().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::UnixTime;
    use time::{Duration, OffsetDateTime};
    use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};

    use super::*;
    use crate::CLOCK_SKEW;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

    fn names(names: &[&str]) -> Vec<Name> {
        names.iter().map(|name| Name::try_from(name.to_string()).unwrap()).collect()
    }

    fn authority() -> Authority {
        Authority::new("test CA", Validity::starting(NOW, Duration::days(10))).unwrap()
    }

    /// What a TLS client that trusts `authority` says.
    fn verify(
        authority: &Authority,
        pair: &Pair,
        name: &str,
        at: OffsetDateTime,
    ) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            at.unix_timestamp().try_into().unwrap(),
        ));
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap()
            .verify_server_cert(
                &pair.chain()[0],
                &pair.chain()[1..],
                &Name::try_from(name.to_owned()).unwrap(),
                &[],
                at,
            )
            .map(|_| ())
    }

    #[test]
    fn clients_accept_the_leaf_for_its_names_alone() {
        let authority = authority();
        let sans = ["sfunnel-webhook.sfunnel-system.svc", "127.0.0.1", "::1"];
        let pair =
            authority.issue(&names(&sans), Validity::starting(NOW, Duration::days(1))).unwrap();
        for name in sans {
            verify(&authority, &pair, name, NOW).unwrap();
        }
        for other in ["localhost", "127.0.0.2"] {
            let error = verify(&authority, &pair, other, NOW).unwrap_err();
            assert!(error.to_string().contains("not valid for name"), "{error}");
        }
    }

    #[test]
    fn clients_accept_the_leaf_in_its_time_alone() {
        let authority = authority();
        let validity = Validity::starting(NOW, Duration::days(1));
        let pair = authority.issue(&names(&["localhost"]), validity).unwrap();
        let check = |at| verify(&authority, &pair, "localhost", at);
        check(NOW - CLOCK_SKEW).unwrap();
        check(NOW + Duration::days(1)).unwrap();
        assert!(check(NOW - CLOCK_SKEW - Duration::SECOND).is_err());
        assert!(check(NOW + Duration::days(1) + Duration::SECOND).is_err());
    }

    #[test]
    fn clients_refuse_another_authoritys_leaf() {
        let validity = Validity::starting(NOW, Duration::days(1));
        let pair = authority().issue(&names(&["localhost"]), validity).unwrap();
        assert!(verify(&authority(), &pair, "localhost", NOW).is_err());
    }

    #[test]
    fn keys_are_p256_and_usages_are_the_least() {
        let authority = authority();
        let pair = authority.issue(&names(&["localhost"]), authority.validity()).unwrap();
        let (_, ca) = X509Certificate::from_der(authority.certificate().der()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&pair.chain()[0]).unwrap();
        for certificate in [&ca, &leaf] {
            let algorithm = &certificate.public_key().algorithm;
            assert_eq!(algorithm.algorithm, OID_KEY_TYPE_EC_PUBLIC_KEY);
            let curve = algorithm.parameters.as_ref().unwrap().as_oid().unwrap();
            assert_eq!(curve, OID_EC_P256);
        }
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = ca.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && !usage.digital_signature());
        assert!(!leaf.is_ca());
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
    }

    #[test]
    fn a_leaf_ends_with_its_authority() {
        let authority = authority();
        let pair = authority
            .issue(&names(&["localhost"]), Validity::starting(NOW, Duration::days(1_000)))
            .unwrap();
        assert_eq!(pair.validity(), authority.validity());
    }

    #[test]
    fn an_authority_survives_pem() {
        let old = authority();
        let new = Authority::from_pem(old.certificate().pem().as_bytes(), &old.key_pem()).unwrap();
        assert_eq!(new.validity(), old.validity());
        let pair = new.issue(&names(&["localhost"]), new.validity()).unwrap();
        verify(&old, &pair, "localhost", NOW).unwrap();
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let (one, other) = (authority(), authority());
        let check = |certificate: &str, key: &str| {
            Authority::from_pem(certificate.as_bytes(), key).unwrap_err().to_string()
        };
        assert_eq!(
            check(&one.certificate().pem(), &other.key_pem()),
            "the CA key is not the one of the CA certificate"
        );
        assert!(
            check("", &one.key_pem()).starts_with("the CA certificate is no PEM certificate: ")
        );
        assert!(
            check(&one.certificate().pem(), "").starts_with("the CA key is no PEM private key")
        );

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let leaf = params("leaf", one.validity()).self_signed(&key).unwrap();
        assert_eq!(
            check(&leaf.pem(), &key.serialize_pem()),
            "the CA certificate is not a CA's: it lacks the CA flag or the key usage keyCertSign"
        );
    }

    #[test]
    fn a_subject_that_cant_be_written_again_is_refused() {
        let ca = |attribute: &[u64]| {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let mut params = params("test CA", authority().validity());
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.distinguished_name.push(DnType::CustomDnType(attribute.to_vec()), "x");
            let certificate = params.self_signed(&key).unwrap();
            Authority::from_pem(certificate.pem().as_bytes(), &key.serialize_pem())
        };
        ca(&[1, 39, 7]).unwrap();
        ca(&[2, 39, 7]).unwrap();
        // An identifier, but one that the parser takes for {3 0 7}.
        let error = ca(&[2, 40, 7]).unwrap_err();
        assert!(matches!(error, AuthorityError::Subject), "{error}");
    }

    #[test]
    fn a_leaf_needs_a_name() {
        let authority = authority();
        let error = authority.issue(&[], authority.validity()).unwrap_err();
        assert!(matches!(error, AuthorityError::NoName));
    }
}
