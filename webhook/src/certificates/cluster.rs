//! The three objects of the cluster that certificates need, and what is done with them.
//!
//! Every request names the object that it is about, lists and watches by a field selector, so rules by
//! `resourceNames` are all that the service account needs: `get`, `list`, `watch` and `patch` for all three,
//! `create` for the Secret.
//!
//! Objects are patched, never replaced, so fields that this program doesn't know stay in them.

use std::fmt::{self, Debug};
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use certs::{Bundle, Data, Published};
use futures_util::{StreamExt, TryStreamExt};
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

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
    fn secret(&self) -> impl Future<Output = Result<Option<SecretData>, ClusterError>> + Send;

    /// Makes the Secret without anything in it. One that is there stays as it is, and is returned.
    fn create_secret(&self) -> impl Future<Output = Result<SecretData, ClusterError>> + Send;

    /// Replaces the data of the Secret, unless someone has changed it since it was `found`.
    fn write_secret(
        &self,
        found: &SecretData,
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
pub struct SecretData {
    /// Its `resourceVersion`.
    pub version: String,
    /// Its data.
    pub data: Data,
}

/// Without values: keys are among them.
impl Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.data.keys().collect();
        f.debug_struct("SecretData").field("version", &self.version).field("names", &names).finish()
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
    Conflict(Operation),
    /// No answer, or none that helps.
    #[error("{operation}: {problem}")]
    Failed {
        /// What was tried.
        operation: Operation,
        /// What went wrong.
        problem: String,
    },
}

/// A request about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Such as `reading`.
    pub what: &'static str,
    /// Kind and name.
    pub object: String,
}

impl fmt::Display for Operation {
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
    configurations: [(Kind, Api<DynamicObject>); 2],
}

impl KubeCluster {
    /// The objects with these `names`. Nothing is asked of the cluster yet.
    pub fn new(client: Client, names: Names) -> Self {
        let secrets = Api::namespaced(client.clone(), &names.namespace);
        let configurations = [
            (Kind::Mutating, ApiResource::erase::<MutatingWebhookConfiguration>(&())),
            (Kind::Validating, ApiResource::erase::<ValidatingWebhookConfiguration>(&())),
        ]
        .map(|(kind, resource)| (kind, Api::all_with(client.clone(), &resource)));
        Self { names, secrets, configurations }
    }

    /// Wakes `changed` whenever one of the objects may have changed; never returns.
    pub async fn watch(self, changed: Arc<Notify>) {
        let Names { secret, configuration, .. } = &self.names;
        let [mutating, validating] = self.configurations.clone().map(|(kind, api)| {
            watch(api, configuration, self.operation("watching", kind), &changed)
        });
        let secrets =
            watch(self.secrets.clone(), secret, self.secret_operation("watching"), &changed);
        tokio::join!(secrets, mutating, validating);
    }

    fn secret_operation(&self, what: &'static str) -> Operation {
        let Names { namespace, secret, .. } = &self.names;
        Operation { what, object: format!("Secret {namespace}/{secret}") }
    }

    fn operation(&self, what: &'static str, kind: Kind) -> Operation {
        Operation { what, object: format!("{} {}", kind.name(), self.names.configuration) }
    }

    async fn configuration(
        &self,
        (kind, api): &(Kind, Api<DynamicObject>),
    ) -> Result<Option<Configuration>, ClusterError> {
        let request = api.get_opt(&self.names.configuration);
        let found = call(self.operation("reading", *kind), request).await?;
        Ok(found.map(|found| {
            let version = found.resource_version().unwrap_or_default();
            let webhooks = found.data["webhooks"].as_array().into_iter().flatten();
            let bundle = |webhook: &Value| {
                let bundle = webhook.pointer("/clientConfig/caBundle").cloned().unwrap_or_default();
                serde_json::from_value(bundle).map(|ByteString(bundle)| bundle).unwrap_or_default()
            };
            Configuration { kind: *kind, version, bundles: webhooks.map(bundle).collect() }
        }))
    }

    /// A patch that sets the version applies to that version alone. A `test` of it would do as well, but
    /// when that fails the API server only says that something is wrong with the request.
    async fn patch<K: Clone + DeserializeOwned + Debug>(
        api: &Api<K>,
        name: &str,
        operation: Operation,
        version: &str,
        operations: impl IntoIterator<Item = PatchOperation>,
    ) -> Result<(), ClusterError> {
        let version = add(&["metadata", "resourceVersion"], version.into());
        let patch = json_patch::Patch(std::iter::once(version).chain(operations).collect());
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let patch = Patch::<()>::Json(patch);
        call(operation, api.patch(name, &parameters, &patch)).await.map(drop)
    }
}

impl Cluster for KubeCluster {
    /// Pods are injected without the validating one, so an error there doesn't hold up the other.
    async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
        let [mutating, validating] = &self.configurations;
        let (mutating, validating) =
            tokio::join!(self.configuration(mutating), self.configuration(validating));
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
        let Configuration { kind, version, bundles } = configuration;
        let bundle = bytes(bundle.pem().into_bytes());
        let operations = (0..bundles.len()).map(|index| {
            add(&["webhooks", &index.to_string(), "clientConfig", "caBundle"], bundle.clone())
        });
        let apis = self.configurations.iter();
        for (_, api) in apis.filter(|(of, _)| of == kind) {
            let operation = self.operation("patching", *kind);
            let name = &self.names.configuration;
            Self::patch(api, name, operation, version, operations.clone()).await?;
        }
        Ok(())
    }

    async fn secret(&self) -> Result<Option<SecretData>, ClusterError> {
        let request = self.secrets.get_opt(&self.names.secret);
        let found = call(self.secret_operation("reading"), request).await?;
        Ok(found.map(SecretData::from))
    }

    /// Applied, a Secret that is there stays as it is. And unlike that of a `POST`, the permission to
    /// create an object by applying it can be given for one name: the API server knows it from the path.
    async fn create_secret(&self) -> Result<SecretData, ClusterError> {
        let empty = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.names.secret },
        });
        let (parameters, patch) = (PatchParams::apply(FIELD_MANAGER), Patch::Apply(&empty));
        let request = self.secrets.patch(&self.names.secret, &parameters, &patch);
        call(self.secret_operation("creating"), request).await.map(SecretData::from)
    }

    async fn write_secret(&self, found: &SecretData, data: &Data) -> Result<(), ClusterError> {
        let data = data.iter().map(|(name, value)| (name.clone(), bytes(value.clone())));
        let data = add(&["data"], Value::Object(data.collect()));
        let operation = self.secret_operation("patching");
        Self::patch(&self.secrets, &self.names.secret, operation, &found.version, [data]).await
    }
}

impl From<Secret> for SecretData {
    fn from(secret: Secret) -> Self {
        let version = secret.resource_version().unwrap_or_default();
        let data = secret.data.unwrap_or_default();
        Self { version, data: data.into_iter().map(|(name, value)| (name, value.0)).collect() }
    }
}

fn bytes(value: Vec<u8>) -> Value {
    serde_json::to_value(ByteString(value)).expect("bytes are a string in base64")
}

/// Adds a field, or replaces it.
fn add(path: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Add(AddOperation { path, value })
}

async fn call<T>(
    operation: Operation,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ClusterError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if is_conflict(&error) => Err(ClusterError::Conflict(operation)),
        Ok(Err(error)) => Err(ClusterError::Failed { operation, problem: text(&error) }),
        Err(_) => {
            let problem = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
            Err(ClusterError::Failed { operation, problem })
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

/// Wakes `changed` at every event of one object. The manager reads the object itself when it is woken, and
/// from time to time anyhow, so neither the event nor a lost one matters.
async fn watch<K>(api: Api<K>, name: &str, operation: Operation, changed: &Notify)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // The field selector makes `resourceNames` apply.
    let object = watcher::Config::default().fields(&format!("metadata.name={name}"));
    // `Init` comes before anything was asked: it is no news, and would reset the backoff.
    let answers = watcher(api, object).try_filter(|event| ready(!matches!(event, Event::Init)));
    let mut events = pin!(answers.default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => changed.notify_one(),
            Err(error) => warn!("{operation}: {}", chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_tell_its_values() {
        let data = Data::from([("ca.key".to_owned(), b"hidden".to_vec())]);
        let secret = SecretData { version: "7".to_owned(), data };
        assert_eq!(format!("{secret:?}"), r#"SecretData { version: "7", names: ["ca.key"] }"#);
    }
}
