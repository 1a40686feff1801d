//! The three objects of the cluster that certificates need, and what is done with them.
//!
//! Every request names the object that it is about, watches included, so rules by `resourceNames` are
//! all that the service account needs: `get`, `watch`, `create` and `patch` for the Secret, `get`,
//! `watch` and `patch` for the webhook configurations. Nothing is listed.
//!
//! Objects are patched, never replaced: what this program doesn't know of stays in them.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use certs::{Bundle, Data, Published};
use futures_util::StreamExt;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::backoff::Backoff;

/// Where certificates are agreed on and published.
pub trait Cluster: Send + Sync + 'static {
    /// Reads the webhook configurations, as many as there are.
    fn configurations(
        &self,
    ) -> impl Future<Output = Result<Vec<Configuration>, ClusterError>> + Send;

    /// Gives all webhooks of `configuration` this `caBundle`, unless someone has changed it since.
    fn publish(
        &self,
        configuration: &Configuration,
        bundle: &Bundle,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Reads the Secret.
    fn secret(&self) -> impl Future<Output = Result<Option<Stored>, ClusterError>> + Send;

    /// Makes the Secret without anything in it. One that is there stays as it is, and is returned.
    fn create_secret(&self) -> impl Future<Output = Result<Stored, ClusterError>> + Send;

    /// Replaces the data of the Secret, unless someone has changed it since it was `found`.
    fn write_secret(
        &self,
        found: &Stored,
        data: &Data,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
}

/// Which of the two webhook configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MutatingWebhookConfiguration. Without it, nothing is injected.
    Mutating,
    /// ValidatingWebhookConfiguration.
    Validating,
}

impl Kind {
    /// As the API calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        }
    }
}

/// A webhook configuration, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Which one.
    pub kind: Kind,
    /// Its `resourceVersion`.
    pub version: String,
    /// The `caBundle` of each webhook.
    pub bundles: Vec<Vec<u8>>,
}

/// The Secret, as it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its `resourceVersion`.
    pub version: String,
    /// Its data.
    pub data: Data,
}

/// Without values: keys are among them.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.data.keys().collect();
        f.debug_struct("Stored").field("version", &self.version).field("names", &names).finish()
    }
}

impl Configuration {
    /// What callers of this one were told to trust.
    pub fn published(&self) -> Published {
        Published::new(self.bundles.iter().map(Vec::as_slice))
    }
}

/// The configuration that readiness depends on: that of the calls that a pod can't start without.
pub fn decisive(all: &[Configuration]) -> Option<&Configuration> {
    all.iter().find(|one| one.kind == Kind::Mutating).or(all.first())
}

/// What is trusted by the callers of the decisive one.
pub fn published(all: &[Configuration]) -> Published {
    decisive(all).map_or(Published::Absent, Configuration::published)
}

/// Why the cluster didn't do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Someone was faster.
    #[error("{0}: it was changed meanwhile")]
    Conflict(Doing),
    /// No answer, or none that helps.
    #[error("{doing}: {problem}")]
    Failed {
        /// What was tried.
        doing: Doing,
        /// What went wrong.
        problem: String,
    },
}

/// What is done to which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doing {
    /// Such as `reading`.
    pub what: &'static str,
    /// Kind and name.
    pub object: String,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.object)
    }
}

/// Names of the three objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// Both webhook configurations.
    pub configuration: String,
}

/// For one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose fields these are, for `kubectl get --show-managed-fields`.
const FIELD_MANAGER: &str = "sfunnel-webhook";

/// A real cluster.
#[derive(Clone, Debug)]
pub struct KubeCluster {
    names: Names,
    secrets: Api<Secret>,
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
}

impl KubeCluster {
    /// The objects with these `names`. Nothing is asked of the cluster yet.
    pub fn new(client: Client, names: Names) -> Self {
        let secrets = Api::namespaced(client.clone(), &names.namespace);
        let (mutating, validating) = (Api::all(client.clone()), Api::all(client));
        Self { names, secrets, mutating, validating }
    }

    /// Wakes `changed` whenever one of the objects may have changed, and ends never.
    pub async fn watch(self, changed: Arc<Notify>) {
        let Names { secret, configuration, .. } = &self.names;
        tokio::join!(
            watch(&self.secrets, secret, self.secret_doing("watching"), &changed),
            watch(&self.mutating, configuration, self.doing("watching", Kind::Mutating), &changed),
            watch(
                &self.validating,
                configuration,
                self.doing("watching", Kind::Validating),
                &changed
            ),
        );
    }

    fn secret_doing(&self, what: &'static str) -> Doing {
        let Names { namespace, secret, .. } = &self.names;
        Doing { what, object: format!("Secret {namespace}/{secret}") }
    }

    fn doing(&self, what: &'static str, kind: Kind) -> Doing {
        Doing { what, object: format!("{} {}", kind.name(), self.names.configuration) }
    }

    async fn mutating(&self) -> Result<Option<Configuration>, ClusterError> {
        let request = self.mutating.get_opt(&self.names.configuration);
        let found = call(self.doing("reading", Kind::Mutating), request).await?;
        Ok(found.map(|found| {
            let version = found.resource_version().unwrap_or_default();
            let webhooks = found.webhooks.into_iter().flatten();
            let bundles = webhooks.map(|webhook| bundle(webhook.client_config)).collect();
            Configuration { kind: Kind::Mutating, version, bundles }
        }))
    }

    async fn validating(&self) -> Result<Option<Configuration>, ClusterError> {
        let request = self.validating.get_opt(&self.names.configuration);
        let found = call(self.doing("reading", Kind::Validating), request).await?;
        Ok(found.map(|found| {
            let version = found.resource_version().unwrap_or_default();
            let webhooks = found.webhooks.into_iter().flatten();
            let bundles = webhooks.map(|webhook| bundle(webhook.client_config)).collect();
            Configuration { kind: Kind::Validating, version, bundles }
        }))
    }
}

fn bundle(client: WebhookClientConfig) -> Vec<u8> {
    client.ca_bundle.unwrap_or_default().0
}

impl Cluster for KubeCluster {
    /// Pods are injected without the validating one: where it can't be read, the other one goes on.
    async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
        let (mutating, validating) = tokio::join!(self.mutating(), self.validating());
        let validating = validating.unwrap_or_else(|error| {
            warn!("{error}");
            None
        });
        Ok(mutating?.into_iter().chain(validating).collect())
    }

    async fn publish(
        &self,
        configuration: &Configuration,
        bundle: &Bundle,
    ) -> Result<(), ClusterError> {
        let bundle = bytes(bundle.pem().into_bytes());
        let indices = 0..configuration.bundles.len();
        let operations = indices.map(|index| {
            add(&["webhooks", &index.to_string(), "clientConfig", "caBundle"], bundle.clone())
        });
        let patch = patch(&configuration.version, operations);
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let (name, doing) = (&self.names.configuration, self.doing("patching", configuration.kind));
        match configuration.kind {
            Kind::Mutating => {
                call(doing, self.mutating.patch_metadata(name, &parameters, &patch)).await.map(drop)
            }
            Kind::Validating => {
                call(doing, self.validating.patch_metadata(name, &parameters, &patch))
                    .await
                    .map(drop)
            }
        }
    }

    async fn secret(&self) -> Result<Option<Stored>, ClusterError> {
        let request = self.secrets.get_opt(&self.names.secret);
        let found = call(self.secret_doing("reading"), request).await?;
        Ok(found.map(stored))
    }

    /// Applied, a Secret that is there stays as it is. And unlike that of a `POST`, the permission to
    /// create an object by applying it can be given for one name: the API server knows it from the path.
    async fn create_secret(&self) -> Result<Stored, ClusterError> {
        let empty = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.names.secret },
        });
        let parameters = PatchParams::apply(FIELD_MANAGER);
        let patch = Patch::Apply(&empty);
        let request = self.secrets.patch(&self.names.secret, &parameters, &patch);
        Ok(stored(call(self.secret_doing("creating"), request).await?))
    }

    async fn write_secret(&self, found: &Stored, data: &Data) -> Result<(), ClusterError> {
        let data = data.iter().map(|(name, value)| (name.clone(), bytes(value.clone())));
        let patch = patch(&found.version, [add(&["data"], Value::Object(data.collect()))]);
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let request = self.secrets.patch_metadata(&self.names.secret, &parameters, &patch);
        call(self.secret_doing("patching"), request).await.map(drop)
    }
}

fn stored(secret: Secret) -> Stored {
    let version = secret.resource_version().unwrap_or_default();
    let data = secret.data.unwrap_or_default();
    Stored { version, data: data.into_iter().map(|(name, value)| (name, value.0)).collect() }
}

fn bytes(value: Vec<u8>) -> Value {
    serde_json::to_value(ByteString(value)).expect("bytes are a string in base64")
}

/// A patch that sets the version applies to that version alone. A `test` of it would do as well, but when
/// it fails the API server only says that something is wrong with the request.
fn patch(version: &str, operations: impl IntoIterator<Item = PatchOperation>) -> Patch<Value> {
    let version = add(&["metadata", "resourceVersion"], version.into());
    Patch::Json(json_patch::Patch([version].into_iter().chain(operations).collect()))
}

/// Adds a field, or replaces it.
fn add(path: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Add(AddOperation { path, value })
}

async fn call<T>(
    doing: Doing,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ClusterError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if is_conflict(&error) => Err(ClusterError::Conflict(doing)),
        Ok(Err(error)) => Err(ClusterError::Failed { doing, problem: text(&error) }),
        Err(_) => {
            let problem = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
            Err(ClusterError::Failed { doing, problem })
        }
    }
}

/// The object has another version, or is gone.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("{}; grant it as the manifests of sfunnel do", status.message)
        }
        kube::Error::Api(status) => format!("{} (status {})", status.message, status.code),
        kube::Error::Service(error) => chain(&**error),
        other => chain(other),
    }
}

/// Errors of connections say what is wrong only in their sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// How long the API server lets a watch run, in seconds, and how much later it is given up.
const WATCH_SECONDS: u32 = 290;
const WATCH_GRACE: Duration = Duration::from_secs(10);

/// Wakes `changed` at every event of one object. Which one doesn't matter, nor does a lost one for
/// long: whoever is woken reads the object itself, and does so from time to time anyhow.
async fn watch<K>(api: &Api<K>, name: &str, doing: Doing, changed: &Notify)
where
    K: Resource + Clone + fmt::Debug + DeserializeOwned,
{
    // The field selector makes `resourceNames` apply to the watch.
    let parameters =
        WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let longest = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let events = async {
            // "0": from whatever version is at hand, beginning with the object itself.
            let mut events = pin!(api.watch_metadata(&parameters, "0").await?);
            changed.notify_one();
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                    WatchEvent::Bookmark(_) => {}
                    _ => changed.notify_one(),
                }
            }
            Ok(())
        };
        match timeout(longest, events).await {
            Ok(Ok(())) => debug!("{doing}: ended"),
            Ok(Err(error)) => warn!("{doing}: {}", text(&error)),
            Err(_) => debug!("{doing}: nothing heard for {} s", longest.as_secs()),
        }
        // A watch that lasted was a good one.
        if started.elapsed() > LASTING {
            backoff.reset();
        }
        sleep_until(Instant::now() + backoff.delay()).await;
    }
}

/// What lasts longer than this doesn't count as failed.
const LASTING: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_tell_its_values() {
        let data = Data::from([("ca.key".to_owned(), b"hidden".to_vec())]);
        let stored = Stored { version: "7".to_owned(), data };
        assert_eq!(format!("{stored:?}"), r#"Stored { version: "7", names: ["ca.key"] }"#);
    }
}
