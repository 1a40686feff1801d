//! Pods, read as far as decisions go.
//!
//! A pod may have 3 MiB, in lists of anything, and a type of the API takes hundreds of bytes where its text
//! takes two. So lists are not kept: what decisions ask of one is worked out while it is read. The pod that
//! comes of it has the types of the API, with everything left out that nobody asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, LocalObjectReference, Pod, PodOS, PodSpec,
    Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::Object;
use crate::names::{LOADER, NO_TOKEN_VOLUME};
use crate::placement;

/// Reads a pod, or the template of pods.
///
/// # Errors
///
/// When a field that is looked at has the wrong type.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pod, D::Error> {
    let Object(Parts { metadata, spec }) = Object::deserialize(deserializer)?;
    Ok(Pod {
        metadata: metadata.map(|Object(metadata)| metadata.into()).unwrap_or_default(),
        spec: spec.map(|Object(spec)| spec.into()),
        status: None,
    })
}

/// Reads an object's metadata.
///
/// # Errors
///
/// When a field that is looked at has the wrong type.
pub fn read_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = Option::<Object<Metadata>>::deserialize(deserializer)?;
    Ok(metadata.map(|Object(metadata)| metadata.into()).unwrap_or_default())
}

#[derive(Deserialize)]
struct Parts {
    metadata: Option<Object<Metadata>>,
    spec: Option<Object<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    generate_name: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<List<Controller>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(from: Metadata) -> Self {
        let Metadata { name, generate_name, annotations, owner_references } = from;
        let controller = owner_references.and_then(|list| list.0.0);
        let owner_references = controller.map(|owner| vec![owner]);
        Self { name, generate_name, annotations, owner_references, ..Self::default() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    automount_service_account_token: Option<bool>,
    containers: Option<List<Containers>>,
    host_network: Option<bool>,
    host_users: Option<bool>,
    image_pull_secrets: Option<List<PullSecrets>>,
    init_containers: Option<List<InitContainers>>,
    node_selector: Option<BTreeMap<String, String>>,
    os: Option<PodOS>,
    runtime_class_name: Option<String>,
    tolerations: Option<List<Tolerations>>,
    volumes: Option<List<Volumes>>,
}

impl From<Spec> for PodSpec {
    fn from(from: Spec) -> Self {
        let containers = from.containers.map(|list| list.0).unwrap_or_default();
        Self {
            automount_service_account_token: from.automount_service_account_token,
            containers: containers.into_iter().collect(),
            host_network: from.host_network,
            host_users: from.host_users,
            image_pull_secrets: from.image_pull_secrets.map(|List(PullSecrets(names))| {
                names.into_iter().map(|name| LocalObjectReference { name }).collect()
            }),
            init_containers: from.init_containers.map(|List(init)| {
                init.loaders.into_iter().chain(init.others.into_iter()).collect()
            }),
            node_selector: from.node_selector,
            os: from.os,
            runtime_class_name: from.runtime_class_name,
            tolerations: from.tolerations.map(|list| list.0.0),
            volumes: from.volumes.map(|list| list.0.0.into_iter().collect()),
            ..Self::default()
        }
    }
}

/// What is kept of a list.
trait Fold: Default {
    /// As much of an item as is looked at.
    type Item<'de>: Deserialize<'de>;

    /// Takes an item into account, or says what is wrong with it.
    fn take(&mut self, item: Self::Item<'_>) -> Result<(), serde_json::Error>;
}

/// A list of which only `F` is kept.
struct List<F>(F);

impl<'de, F: Fold> Deserialize<'de> for List<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<F>(PhantomData<F>);

        impl<'de, F: Fold> Visitor<'de> for Items<F> {
            type Value = F;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<F, A::Error> {
                let mut kept = F::default();
                while let Some(item) = items.next_element()? {
                    kept.take(item).map_err(A::Error::custom)?;
                }
                Ok(kept)
            }
        }

        deserializer.deserialize_seq(Items(PhantomData)).map(List)
    }
}

/// The owner that answers for an object.
#[derive(Default)]
struct Controller(Option<OwnerReference>);

#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    controller: Option<bool>,
}

impl Fold for Controller {
    type Item<'de> = Object<Owner>;

    fn take(
        &mut self,
        Object(Owner { kind, name, controller }): Self::Item<'_>,
    ) -> Result<(), serde_json::Error> {
        if self.0.is_none() && controller == Some(true) {
            self.0 = Some(OwnerReference { kind, name, controller, ..OwnerReference::default() });
        }
        Ok(())
    }
}

/// Ports that are declared, each once.
#[derive(Default)]
struct Ports(BTreeSet<(i32, Option<String>)>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    container_port: i32,
    protocol: Option<String>,
}

impl Fold for Ports {
    type Item<'de> = Object<Port>;

    fn take(
        &mut self,
        Object(Port { container_port, protocol }): Self::Item<'_>,
    ) -> Result<(), serde_json::Error> {
        self.0.insert((container_port, protocol));
        Ok(())
    }
}

/// The ports of all containers, as those of one without a name, and the one that has the loader's name.
#[derive(Default)]
struct Containers {
    ports: Ports,
    any: bool,
    loader: bool,
}

#[derive(Deserialize)]
struct NamedContainer {
    name: String,
    ports: Option<List<Ports>>,
}

impl Containers {
    fn note(&mut self, NamedContainer { name, ports }: NamedContainer) {
        self.any = true;
        self.loader |= name == LOADER;
        self.ports.0.extend(ports.into_iter().flat_map(|list| list.0.0));
    }

    fn into_iter(self) -> impl Iterator<Item = Container> {
        let ports = self.ports.0.into_iter().map(|(container_port, protocol)| ContainerPort {
            container_port,
            protocol,
            ..ContainerPort::default()
        });
        let all = Container { ports: Some(ports.collect()), ..Container::default() };
        let loader = Container { name: LOADER.to_owned(), ..Container::default() };
        self.any.then_some(all).into_iter().chain(self.loader.then_some(loader))
    }
}

impl Fold for Containers {
    type Item<'de> = Object<NamedContainer>;

    fn take(&mut self, Object(container): Self::Item<'_>) -> Result<(), serde_json::Error> {
        self.note(container);
        Ok(())
    }
}

/// The loader among the init containers is compared field by field.
#[derive(Default)]
struct InitContainers {
    loaders: Vec<Container>,
    others: Containers,
}

/// Bytes of a loader's text, at the most: ours has some hundred. A longer one is none of ours.
const MAX_LOADER: usize = 64 << 10;
/// Loaders that are kept, at the most: one is compared, and more are a mistake, however many there are.
const MAX_LOADERS: usize = 2;

impl Fold for InitContainers {
    type Item<'de> = Box<RawValue>;

    fn take(&mut self, text: Box<RawValue>) -> Result<(), serde_json::Error> {
        let text = text.get();
        let Object(named) = serde_json::from_str::<Object<NamedContainer>>(text)?;
        if named.name != LOADER {
            self.others.note(named);
        } else if self.loaders.len() < MAX_LOADERS {
            self.loaders.push(match text.len() > MAX_LOADER {
                true => Container { name: LOADER.to_owned(), ..Container::default() },
                false => serde_json::from_str(text)?,
            });
        }
        Ok(())
    }
}

/// The names of secrets, each once.
#[derive(Default)]
struct PullSecrets(BTreeSet<String>);

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

impl Fold for PullSecrets {
    type Item<'de> = Object<Named>;

    fn take(&mut self, Object(secret): Self::Item<'_>) -> Result<(), serde_json::Error> {
        self.0.insert(secret.name);
        Ok(())
    }
}

/// The first toleration that means something to us.
#[derive(Default)]
struct Tolerations(Vec<Toleration>);

#[derive(Deserialize)]
struct Tolerated {
    key: Option<String>,
}

impl Fold for Tolerations {
    type Item<'de> = Object<Tolerated>;

    fn take(&mut self, Object(Tolerated { key }): Self::Item<'_>) -> Result<(), serde_json::Error> {
        if self.0.is_empty() && key.as_deref() == Some(placement::VIRTUAL_KUBELET) {
            self.0.push(Toleration { key, ..Toleration::default() });
        }
        Ok(())
    }
}

/// The first volume that has our volume's name.
#[derive(Default)]
struct Volumes(Option<Volume>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedVolume {
    name: String,
    empty_dir: Option<IgnoredAny>,
}

impl Fold for Volumes {
    type Item<'de> = Object<NamedVolume>;

    fn take(
        &mut self,
        Object(NamedVolume { name, empty_dir }): Self::Item<'_>,
    ) -> Result<(), serde_json::Error> {
        if self.0.is_none() && name == NO_TOKEN_VOLUME {
            let empty_dir = empty_dir.map(|_| EmptyDirVolumeSource::default());
            self.0 = Some(Volume { name, empty_dir, ..Volume::default() });
        }
        Ok(())
    }
}
