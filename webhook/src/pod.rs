//! Pods, read as far as decisions go.
//!
//! A pod of 3 MiB is mostly variables of its containers, which nobody here looks at. What isn't looked at
//! isn't kept: that would take twenty times its bytes. The types are those of the API, with the rest left
//! out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, LocalObjectReference, Pod, PodOS, PodSpec,
    Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::names::LOADER;

/// Reads a pod, or the template of pods.
///
/// # Errors
///
/// When a field that is looked at has the wrong type.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pod, D::Error> {
    let Object { metadata, spec } = Object::deserialize(deserializer)?;
    Ok(Pod {
        metadata: metadata.map(ObjectMeta::from).unwrap_or_default(),
        spec: spec.map(PodSpec::from),
        status: None,
    })
}

/// Reads an object's metadata.
///
/// # Errors
///
/// When a field that is looked at has the wrong type.
pub fn read_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = Option::<Metadata>::deserialize(deserializer)?;
    Ok(metadata.map(ObjectMeta::from).unwrap_or_default())
}

#[derive(Deserialize)]
struct Object {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    generate_name: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(from: Metadata) -> Self {
        let Metadata { name, generate_name, annotations, owner_references } = from;
        Self { name, generate_name, annotations, owner_references, ..Self::default() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    automount_service_account_token: Option<bool>,
    containers: Option<Vec<AppContainer>>,
    host_network: Option<bool>,
    host_users: Option<bool>,
    image_pull_secrets: Option<Vec<LocalObjectReference>>,
    init_containers: Option<Vec<InitContainer>>,
    node_selector: Option<BTreeMap<String, String>>,
    os: Option<PodOS>,
    runtime_class_name: Option<String>,
    tolerations: Option<Vec<Tolerated>>,
    volumes: Option<Vec<NamedVolume>>,
}

impl From<Spec> for PodSpec {
    fn from(from: Spec) -> Self {
        let containers = from.containers.unwrap_or_default().into_iter().map(Container::from);
        let init = from.init_containers.map(|all| all.into_iter().map(|one| one.0).collect());
        let tolerations = from.tolerations.map(|all| all.into_iter().map(Into::into).collect());
        Self {
            automount_service_account_token: from.automount_service_account_token,
            containers: containers.collect(),
            host_network: from.host_network,
            host_users: from.host_users,
            image_pull_secrets: from.image_pull_secrets,
            init_containers: init,
            node_selector: from.node_selector,
            os: from.os,
            runtime_class_name: from.runtime_class_name,
            tolerations,
            volumes: from.volumes.map(|all| all.into_iter().map(Volume::from).collect()),
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct AppContainer {
    name: String,
    ports: Option<Vec<ContainerPort>>,
}

impl From<AppContainer> for Container {
    fn from(AppContainer { name, ports }: AppContainer) -> Self {
        Self { name, ports, ..Self::default() }
    }
}

/// The loader among them is compared field by field.
struct InitContainer(Container);

impl<'de> Deserialize<'de> for InitContainer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let named: AppContainer = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        if named.name != LOADER {
            return Ok(Self(named.into()));
        }
        serde_json::from_str(text.get()).map(Self).map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
struct Tolerated {
    key: Option<String>,
}

impl From<Tolerated> for Toleration {
    fn from(Tolerated { key }: Tolerated) -> Self {
        Self { key, ..Self::default() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedVolume {
    name: String,
    empty_dir: Option<IgnoredAny>,
}

impl From<NamedVolume> for Volume {
    fn from(NamedVolume { name, empty_dir }: NamedVolume) -> Self {
        let empty_dir = empty_dir.map(|_| EmptyDirVolumeSource::default());
        Self { name, empty_dir, ..Self::default() }
    }
}
