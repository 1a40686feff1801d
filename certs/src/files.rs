//! Certificates from files, as cert-manager or a mounted Secret leaves them.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::{Pair, PairError, PemError};

/// A certificate or key file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// What the file should hold.
    pub part: Part,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What a file should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificate chain.
    Certificate,
    /// The private key.
    Key,
}

/// What is wrong with a certificate or key file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It can't be read.
    #[error("{0}")]
    Read(#[source] std::io::Error),
    /// No certificate in it.
    #[error("holds no PEM certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// No private key in it.
    #[error("holds no PEM private key (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// Broken PEM.
    #[error("is not valid PEM: {0}")]
    Pem(#[source] PemError),
    /// The chain and the key are no pair.
    #[error("{0}")]
    Pair(#[source] PairError),
    /// Its time is over. API servers would refuse every call.
    #[error("the certificate expired at {0}; renew it")]
    Expired(OffsetDateTime),
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM key: PKCS #8, SEC1 or PKCS #1.
    pub key: PathBuf,
}

/// The bytes of both files.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// The file that can't be read.
    pub fn read(&self) -> Result<Content, FileError> {
        let read = |part| {
            std::fs::read(self.path(part)).map_err(|error| self.error(part, Problem::Read(error)))
        };
        Ok(Content { certificate: read(Part::Certificate)?, key: read(Part::Key)? })
    }

    /// The pair that these files of `content` hold.
    ///
    /// # Errors
    ///
    /// The file at fault and what is wrong with it. A certificate that expired before `now` is an error:
    /// no client would take it. What may be right nevertheless, [`Pair::doubts`] tells.
    pub fn parse(
        &self,
        content: &Content,
        now: OffsetDateTime,
        provider: &CryptoProvider,
    ) -> Result<Pair, FileError> {
        let chain = chain(&content.certificate)
            .map_err(|problem| self.error(Part::Certificate, problem))?;
        let key = private_key(&content.key).map_err(|problem| self.error(Part::Key, problem))?;
        let pair = Pair::new(chain, key, provider).map_err(|error| {
            let part = match error {
                PairError::NoCertificate | PairError::Certificate(_) | PairError::Unusable(_) => {
                    Part::Certificate
                }
                PairError::Mismatch | PairError::Key(_) => Part::Key,
            };
            self.error(part, Problem::Pair(error))
        })?;
        if pair.validity().expired(now) {
            let problem = Problem::Expired(pair.validity().not_after);
            return Err(self.error(Part::Certificate, problem));
        }
        Ok(pair)
    }

    fn path(&self, part: Part) -> &Path {
        match part {
            Part::Certificate => &self.certificate,
            Part::Key => &self.key,
        }
    }

    fn error(&self, part: Part, problem: Problem) -> FileError {
        FileError { part, path: self.path(part).to_owned(), problem }
    }
}

/// Keys stay out of logs.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Problem::Pem(error.into()))?;
    if chain.is_empty() {
        return Err(Problem::NoCertificate);
    }
    Ok(chain)
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => Problem::NoKey,
        other => Problem::Pem(other.into()),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring::default_provider;
    use tempfile::TempDir;
    use time::Duration;

    use super::*;
    use crate::Doubt;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

    /// A folder with `tls.crt` and `tls.key`, good from a day before to a day after [`NOW`].
    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            Self::named(&["localhost"])
        }

        fn named(names: &[&str]) -> Self {
            let folder = Self(TempDir::new().unwrap());
            let key = KeyPair::generate().unwrap();
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_before = NOW - Duration::DAY;
            params.not_after = NOW + Duration::DAY;
            folder.write("tls.crt", &params.self_signed(&key).unwrap().pem());
            folder.write("tls.key", &key.serialize_pem());
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn load(&self, now: OffsetDateTime) -> Result<Pair, FileError> {
            let (certificate, key) = (self.path("tls.crt"), self.path("tls.key"));
            let files = Files { certificate, key };
            files.parse(&files.read()?, now, &default_provider())
        }

        /// The error's text, less the folder.
        #[track_caller]
        fn refusal(&self, now: OffsetDateTime) -> String {
            let text = self.load(now).unwrap_err().to_string();
            let folder = format!("{}/", self.0.path().display());
            text.strip_prefix(&folder).unwrap().to_owned()
        }
    }

    #[test]
    fn a_good_pair_loads() {
        let files = Folder::new();
        let pair = files.load(NOW).unwrap();
        assert_eq!(pair.chain().len(), 1);
        assert_eq!(pair.validity().not_after, NOW + Duration::DAY);
    }

    #[test]
    fn errors_name_the_file_and_the_reason() {
        let (files, other) = (Folder::new(), Folder::new());
        std::fs::copy(other.path("tls.key"), files.path("tls.key")).unwrap();
        assert_eq!(
            files.refusal(NOW),
            "tls.key: the key is not the one that the first certificate was issued for"
        );

        let files = Folder::new();
        files.write("tls.key", "nothing of the kind\n");
        assert_eq!(
            files.refusal(NOW),
            "tls.key: holds no PEM private key (-----BEGIN PRIVATE KEY-----)"
        );
        files.write("tls.crt", "");
        assert_eq!(
            files.refusal(NOW),
            "tls.crt: holds no PEM certificate (-----BEGIN CERTIFICATE-----)"
        );
        files.write("tls.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n");
        assert!(files.refusal(NOW).starts_with("tls.crt: is not valid PEM: "));
        files.write("tls.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        std::fs::copy(other.path("tls.key"), files.path("tls.key")).unwrap();
        let text = files.refusal(NOW);
        assert!(text.starts_with("tls.crt: the first certificate can't be read: "), "{text}");
        std::fs::remove_file(files.path("tls.crt")).unwrap();
        assert_eq!(files.refusal(NOW), "tls.crt: No such file or directory (os error 2)");
    }

    #[test]
    fn an_expired_certificate_is_refused() {
        let files = Folder::new();
        assert_eq!(
            files.refusal(NOW + Duration::days(2)),
            "tls.crt: the certificate expired at 2024-10-05 0:00:00.0 +00:00:00; renew it"
        );
    }

    #[test]
    fn a_certificate_whose_time_has_not_come_is_doubted() {
        let files = Folder::new();
        let early = NOW - Duration::days(2);
        let pair = files.load(early).unwrap();
        assert_eq!(pair.doubts(early), [Doubt::NotYetValid(NOW - Duration::DAY)]);
        assert_eq!(pair.doubts(NOW), []);
        assert_eq!(
            pair.doubts(early)[0].to_string(),
            "the certificate is not valid before 2024-10-03 0:00:00.0 +00:00:00; \
             check this machine's clock"
        );
    }

    #[test]
    fn a_certificate_without_names_is_doubted() {
        assert_eq!(Folder::named(&[]).load(NOW).unwrap().doubts(NOW), [Doubt::NoNames]);
        assert_eq!(Folder::named(&["127.0.0.1"]).load(NOW).unwrap().doubts(NOW), []);
    }
}
