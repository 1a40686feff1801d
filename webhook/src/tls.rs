//! The server's TLS: where its certificate comes from, and which protocols it speaks.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{Authority, AuthorityError, Files, Name, Policy, Validity};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::NoServerSessionStorage;
use time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::api::{self, NoCluster};
use crate::clock::Clock;
use crate::cluster::{self, KubeCluster};
use crate::managed::Manager;
use crate::reload::{Reload, ReloadError};
use crate::served::Served;

/// Where the server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a CA that replicas share.
    Managed(Managed),
    /// From files.
    Files(Files),
    /// From a CA that lives as long as the process.
    SelfSigned {
        /// What the certificate is good for.
        names: Vec<Name>,
        /// Where the CA's certificate goes.
        ca_file: Option<PathBuf>,
    },
}

/// What replicas have to know to share a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// The namespace of the Service and the Secret; the service account's when none is given.
    pub namespace: Option<String>,
    /// The Service by which API servers call.
    pub service: String,
    /// The Secret with the CA.
    pub secret: String,
    /// The MutatingWebhookConfiguration and the ValidatingWebhookConfiguration in which the CA is published.
    pub configuration: String,
    /// How long what lives.
    pub policy: Policy,
}

/// For the log: which objects, which files, or which names.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed(Managed { namespace, service, secret, configuration, policy }) => {
                let namespace = namespace.as_deref().unwrap_or("own");
                write!(
                    f,
                    "managed for Service {service} in namespace {namespace} with Secret {secret} and webhook configurations {configuration}; seconds: CA {}, certificate {}, overlap {}",
                    policy.ca_lifetime().whole_seconds(),
                    policy.certificate_lifetime().whole_seconds(),
                    policy.ca_overlap().whole_seconds(),
                )
            }
            Self::Files(Files { certificate, key }) => {
                write!(f, "{} with {}", certificate.display(), key.display())
            }
            Self::SelfSigned { names, ca_file } => {
                let names: Vec<_> = names.iter().map(Name::to_str).collect();
                write!(f, "self-signed for {}", names.join(","))?;
                ca_file.iter().try_for_each(|file| write!(f, ", CA in {}", file.display()))
            }
        }
    }
}

/// Why there is no TLS. The texts name the flags.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// `--tls-cert` or `--tls-key` is unusable.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// There is no cluster to share a CA in.
    #[error(transparent)]
    NoCluster(#[from] NoCluster),
    /// The namespace is none.
    #[error("--namespace {0}: no name that a namespace can have")]
    Namespace(String),
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

/// A certificate that is kept from ending.
#[derive(Debug)]
pub struct Kept {
    served: Arc<Served>,
    // Dropped, it ends its tasks.
    tasks: JoinSet<()>,
}

impl Kept {
    /// What is shown.
    pub fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served)
    }

    /// Returns when nobody keeps the certificate any more, which is a fault of this program.
    pub async fn lost(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => {}
            // Nothing was there to be done.
            None => std::future::pending().await,
        }
    }
}

impl Source {
    /// Loads or issues the certificate, or begins to agree on one with other replicas: then it comes
    /// later. From now on it is kept. A CA file is written before anything listens, and appears complete
    /// or not at all.
    ///
    /// # Errors
    ///
    /// The flag and the file at fault, or why there is no cluster.
    pub fn keep(self, clock: Clock) -> Result<Kept, TlsError> {
        let served = Arc::new(Served::new(clock.clone()));
        let mut tasks = JoinSet::new();
        match self {
            Self::Managed(managed) => {
                let changed = Arc::new(Notify::new());
                let (cluster, names) = managed.connect()?;
                tasks.spawn(cluster.clone().watch(Arc::clone(&changed)));
                let served = Arc::clone(&served);
                let manager = Manager::new(cluster, managed.policy, names, clock, served);
                tasks.spawn(async { match manager.run(changed).await {} });
            }
            Self::Files(files) => {
                let reload = Reload::new(files, clock, Arc::clone(&served))?;
                tasks.spawn(async { match reload.run().await {} });
            }
            Self::SelfSigned { names, ca_file } => {
                let validity = Validity::starting(clock.now(), SELF_SIGNED_LIFETIME);
                let authority = Authority::new("sfunnel-webhook self-signed CA", validity)
                    .map_err(TlsError::SelfSigned)?;
                let pair = authority.issue(&names, validity).map_err(TlsError::SelfSigned)?;
                if let Some(path) = ca_file {
                    write_file(&path, &authority.certificate().pem())
                        .map_err(|error| TlsError::CaFile { path, error })?;
                }
                served.show(&pair, Some(validity));
            }
        }
        Ok(Kept { served, tasks })
    }
}

impl Managed {
    fn connect(&self) -> Result<(KubeCluster, Vec<Name>), TlsError> {
        let (client, own_namespace) = api::client()?;
        let namespace = self.namespace.clone().unwrap_or(own_namespace);
        // The name by which an API server calls a Service.
        let name = Name::try_from(format!("{}.{namespace}.svc", self.service))
            .map_err(|_| TlsError::Namespace(namespace.clone()))?;
        let names = cluster::Names {
            namespace,
            secret: self.secret.clone(),
            configuration: self.configuration.clone(),
        };
        Ok((KubeCluster::new(client, names), vec![name]))
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

/// TLS 1.2 and 1.3 with HTTP/1.1, which is all that API servers speak to webhooks (kubernetes#75791).
/// Without HTTP/2, a connection has one request at a time.
///
/// # Errors
///
/// When rustls finds no protocol version that its provider supports.
pub fn server_config(served: Arc<Served>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // API servers keep connections, and never resume a session (`crypto/tls` does so only with a cache that
    // `k8s.io/apiserver` doesn't give it).
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The names of a self-signed certificate when none are given.
pub const DEFAULT_NAMES: [&str; 3] =
    ["sfunnel-webhook.sfunnel-system.svc", "localhost", "127.0.0.1"];
