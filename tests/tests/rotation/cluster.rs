//! A cluster in memory: the Secret, and both webhook configurations with all their entries.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::{Bundle, Data};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use webhook::certificates::cluster::{
    Cluster, ClusterError, Configuration, Kind, Operation, SecretData,
};

/// An entry of a webhook configuration: which configuration, which entry, and the path that it calls.
pub type Entry = (Kind, usize, &'static str);

/// All of them, as in deploy/base.
pub const ENTRIES: [Entry; 5] = [
    (Kind::Mutating, 0, "/mutate"),
    (Kind::Mutating, 1, "/mutate/enforced"),
    (Kind::Validating, 0, "/validate"),
    (Kind::Validating, 1, "/validate/enforced"),
    (Kind::Validating, 2, "/validate/unlabelled"),
];

/// The objects. Copies share them.
#[derive(Clone, Default)]
pub struct MemoryCluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    secret: Option<SecretData>,
    configurations: Vec<Configuration>,
    /// What the configurations were, and since when.
    history: Vec<(Instant, Configuration)>,
    watchers: Vec<Arc<Notify>>,
}

impl State {
    fn next_version(&mut self) -> String {
        self.watchers.iter().for_each(|watcher| watcher.notify_one());
        self.version += 1;
        self.version.to_string()
    }

    fn set_secret(&mut self, data: Data) -> SecretData {
        let stored = SecretData { version: self.next_version(), data };
        self.secret.insert(stored).clone()
    }

    fn configure(&mut self, kind: Kind, bundles: Vec<Vec<u8>>) {
        let configuration = Configuration { kind, version: self.next_version(), bundles };
        self.configurations.retain(|other| other.kind != kind);
        self.configurations.push(configuration.clone());
        self.history.push((Instant::now(), configuration));
    }
}

impl MemoryCluster {
    /// The configurations are there, and nothing is in them.
    pub fn new() -> Self {
        let cluster = Self::default();
        for kind in [Kind::Mutating, Kind::Validating] {
            let entries = ENTRIES.iter().filter(|(of, ..)| *of == kind).count();
            cluster.state(|state| state.configure(kind, vec![Vec::new(); entries]));
        }
        cluster
    }

    /// Wakes `watcher` at every change.
    pub fn watch(&self, watcher: &Arc<Notify>) {
        self.state(|state| state.watchers.push(Arc::clone(watcher)));
    }

    /// The `caBundle` of an entry, as it was for whoever hears `lag` later.
    pub fn ca_bundle(&self, (kind, entry, _): Entry, lag: Duration) -> Vec<u8> {
        let heard = |state: &mut State| {
            let mut history = state.history.iter().rev();
            history.find(|(since, one)| one.kind == kind && since.elapsed() >= lag).cloned()
        };
        self.state(heard).map(|(_, one)| one.bundles[entry].clone()).unwrap_or_default()
    }

    /// Every value that a `caBundle` has had.
    pub fn ca_bundles(&self) -> Vec<Vec<u8>> {
        let all = |state: &mut State| state.history.clone();
        self.state(all).into_iter().flat_map(|(_, configuration)| configuration.bundles).collect()
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Requests take their time, in which others are answered.
    async fn request<T>(&self, answer: impl FnOnce(&mut State) -> T) -> T {
        let way = || sleep(Duration::from_millis(rand::random_range(1..20)));
        way().await;
        let answer = self.state(answer);
        way().await;
        answer
    }
}

impl Cluster for MemoryCluster {
    async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
        Ok(self.request(|state| state.configurations.clone()).await)
    }

    async fn publish(&self, found: &Configuration, bundle: &Bundle) -> Result<(), ClusterError> {
        self.request(|state| {
            if !state.configurations.contains(found) {
                return Err(conflict("publishing"));
            }
            let bundles = vec![bundle.pem().into_bytes(); found.bundles.len()];
            state.configure(found.kind, bundles);
            Ok(())
        })
        .await
    }

    async fn secret(&self) -> Result<Option<SecretData>, ClusterError> {
        Ok(self.request(|state| state.secret.clone()).await)
    }

    async fn create_secret(&self) -> Result<SecretData, ClusterError> {
        let create = |state: &mut State| match state.secret.clone() {
            Some(there) => there,
            None => state.set_secret(Data::new()),
        };
        Ok(self.request(create).await)
    }

    async fn write_secret(&self, found: &SecretData, data: &Data) -> Result<(), ClusterError> {
        self.request(|state| {
            if state.secret.as_ref() != Some(found) {
                return Err(conflict("writing"));
            }
            state.set_secret(data.clone());
            Ok(())
        })
        .await
    }
}

fn conflict(what: &'static str) -> ClusterError {
    ClusterError::Conflict(Operation { what, object: "an object in memory".to_owned() })
}
