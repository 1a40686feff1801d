//! Where the server's certificate comes from.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{Authority, AuthorityError, Files, Name, Policy, Validity};
use humantime::format_duration;
use kube::{Client, Config};
use rustls::crypto::ring::default_provider;
use time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::cluster::{KubeCluster, Names};
use super::manager::Manager;
use super::reload::{Reload, ReloadError};
use super::resolver::CertResolver;

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

/// The objects by which replicas share a CA.
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
    /// Lifetimes of CAs and certificates.
    pub policy: Policy,
}

/// For the log: which objects, which files, or which names.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed(Managed { namespace, service, secret, configuration, policy }) => {
                let namespace = namespace.as_deref().unwrap_or("own");
                let lifetimes =
                    [policy.ca_lifetime(), policy.certificate_lifetime(), policy.ca_overlap()];
                let [ca, certificate, overlap] =
                    lifetimes.map(|lifetime| format_duration(lifetime.unsigned_abs()));
                write!(
                    f,
                    "managed for Service {service} in namespace {namespace} with Secret {secret} and webhook \
                     configurations {configuration}; CA {ca}, certificate {certificate}, overlap {overlap}",
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

/// Why there is no certificate. The texts name the flags.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// `--tls-cert` or `--tls-key` is unusable.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// There is no cluster to share a CA in.
    #[error(
        "managed certificates need the Kubernetes API: {0}; run in a pod with the token of a service \
         account, or give --tls-cert and --tls-key, or --self-signed"
    )]
    NoCluster(kube::config::InClusterError),
    /// The client for the cluster can't be built.
    #[error("setting up the client for the Kubernetes API: {0}")]
    Client(kube::Error),
    /// Not the name of a namespace.
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
        /// What the system says.
        error: std::io::Error,
    },
}

/// Lifetime of a self-signed certificate. It can't be renewed, and nobody keeps its key, so it may be longer
/// than any process lives.
const SELF_SIGNED_LIFETIME: Duration = Duration::days(3650);

/// The tasks that renew the certificate. They end when this is dropped.
#[derive(Debug)]
pub struct Renewal {
    resolver: Arc<CertResolver>,
    tasks: JoinSet<()>,
}

impl Renewal {
    /// What is served.
    pub fn resolver(&self) -> Arc<CertResolver> {
        Arc::clone(&self.resolver)
    }

    /// Returns when a task has ended, which is a fault of this program.
    pub async fn failed(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => {}
            // A self-signed certificate needs no task.
            None => std::future::pending().await,
        }
    }
}

impl Source {
    /// Loads or issues the certificate, or starts to agree on one with other replicas, which takes a while.
    /// From then on it is renewed. A CA file is complete before this returns.
    ///
    /// # Errors
    ///
    /// The flag and the file at fault, or why there is no cluster.
    pub fn start(self, clock: Clock) -> Result<Renewal, SourceError> {
        let resolver = Arc::new(CertResolver::new(clock.clone()));
        let mut tasks = JoinSet::new();
        match self {
            Self::Managed(managed) => {
                let changed = Arc::new(Notify::new());
                let (cluster, names) = managed.connect()?;
                tasks.spawn(cluster.clone().watch(Arc::clone(&changed)));
                let resolver = Arc::clone(&resolver);
                let manager = Manager::new(cluster, managed.policy, names, clock, resolver);
                tasks.spawn(async { match manager.run(changed).await {} });
            }
            Self::Files(files) => {
                let reload = Reload::new(files, clock, Arc::clone(&resolver))?;
                tasks.spawn(async { match reload.run().await {} });
            }
            Self::SelfSigned { names, ca_file } => {
                let validity = Validity::starting(clock.now(), SELF_SIGNED_LIFETIME);
                let authority = Authority::new("sfunnel-webhook self-signed CA", validity)
                    .map_err(SourceError::SelfSigned)?;
                let pair = authority.issue(&names, validity).map_err(SourceError::SelfSigned)?;
                if let Some(path) = ca_file {
                    write_file(&path, &authority.certificate().pem())
                        .map_err(|error| SourceError::CaFile { path, error })?;
                }
                resolver.show(&pair, Some(validity));
            }
        }
        Ok(Renewal { resolver, tasks })
    }
}

impl Managed {
    fn connect(&self) -> Result<(KubeCluster, Vec<Name>), SourceError> {
        // kube takes the provider of the process. Whoever has set one before has set the same.
        let _ = default_provider().install_default();
        // The address comes from the environment, so no DNS is needed.
        let mut config = Config::incluster_env().map_err(SourceError::NoCluster)?;
        // The manager has a backoff of its own, and tells what the API server answers.
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or(config.default_namespace.clone());
        // The name by which an API server calls a Service.
        let name = Name::try_from(format!("{}.{namespace}.svc", self.service))
            .map_err(|_| SourceError::Namespace(namespace.clone()))?;
        let names = Names {
            namespace,
            secret: self.secret.clone(),
            configuration: self.configuration.clone(),
        };
        Ok((
            KubeCluster::new(Client::try_from(config).map_err(SourceError::Client)?, names),
            vec![name],
        ))
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

/// The names of a self-signed certificate when none are given.
pub const DEFAULT_NAMES: [&str; 3] =
    ["sfunnel-webhook.sfunnel-system.svc", "localhost", "127.0.0.1"];
