//! The server's TLS: which certificate it shows, and which protocols it speaks.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{Authority, AuthorityError, FileError, Name, Pair, Part, Validity};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::sign::SingleCertAndKey;
use time::{Duration, OffsetDateTime};
use tracing::warn;

/// Where the server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From files.
    Files {
        /// PEM chain, leaf first.
        certificate: PathBuf,
        /// PEM key.
        key: PathBuf,
    },
    /// From a CA that lives as long as the process.
    SelfSigned {
        /// What the certificate is good for.
        names: Vec<Name>,
        /// Where the CA's certificate goes.
        ca_file: Option<PathBuf>,
    },
}

/// For the log: which files, or which names.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { certificate, key } => {
                write!(f, "{} with {}", certificate.display(), key.display())
            }
            Self::SelfSigned { names, .. } => {
                let names: Vec<_> = names.iter().map(Name::to_str).collect();
                write!(f, "self-signed for {}", names.join(","))
            }
        }
    }
}

/// Why there is no TLS. The texts name the flags.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// `--tls-cert` or `--tls-key` is unusable.
    #[error("{flag} {error}")]
    File {
        /// The flag that names the file.
        flag: &'static str,
        /// What is wrong.
        error: FileError,
    },
    /// The certificate can't be issued.
    #[error("--self-signed: {0}")]
    SelfSigned(AuthorityError),
    /// The CA's certificate can't be written.
    #[error("--ca-file {}: {error}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// rustls refuses its own defaults.
    #[error("setting up TLS: {0}")]
    Rustls(rustls::Error),
}

/// A self-signed certificate can't be renewed, and nobody keeps its key. It may live longer than any
/// process.
const SELF_SIGNED_LIFETIME: Duration = Duration::days(3650);

impl Source {
    /// Loads or issues the certificate. A CA file is written before anything listens, and appears
    /// complete or not at all.
    ///
    /// # Errors
    ///
    /// The flag and the file at fault.
    pub fn pair(&self, now: OffsetDateTime) -> Result<Pair, TlsError> {
        match self {
            Self::Files { certificate, key } => {
                let pair =
                    certs::load(certificate, key, now, &default_provider()).map_err(|error| {
                        let flag = match error.part {
                            Part::Certificate => "--tls-cert",
                            Part::Key => "--tls-key",
                        };
                        TlsError::File { flag, error }
                    })?;
                for doubt in pair.doubts(now) {
                    warn!("--tls-cert {}: {doubt}", certificate.display());
                }
                Ok(pair)
            }
            Self::SelfSigned { names, ca_file } => {
                let validity = Validity::starting(now, SELF_SIGNED_LIFETIME);
                let authority = Authority::new("sfunnel-webhook self-signed CA", validity)
                    .map_err(TlsError::SelfSigned)?;
                let pair = authority.issue(names, validity).map_err(TlsError::SelfSigned)?;
                if let Some(path) = ca_file {
                    write_file(path, authority.certificate_pem()).map_err(|error| {
                        let path = path.clone();
                        TlsError::CaFile { path, error }
                    })?;
                }
                Ok(pair)
            }
        }
    }
}

fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    // A certificate is for everybody to read; temporary files are not.
    file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// TLS 1.2 and 1.3 with HTTP/2, which API servers choose, and HTTP/1.1.
///
/// # Errors
///
/// When rustls finds no protocol version that its provider supports.
pub fn server_config(pair: &Pair) -> Result<Arc<ServerConfig>, TlsError> {
    let certificate = SingleCertAndKey::from(pair.certified_key());
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The names of a self-signed certificate when none are given.
pub const DEFAULT_NAMES: [&str; 3] =
    ["sfunnel-webhook.sfunnel-system.svc", "localhost", "127.0.0.1"];
