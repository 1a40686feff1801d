//! Pods, as far as decisions look at them.

use std::collections::BTreeMap;

use ruleset::contract::{LOADER, PREFIX, STATUS};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The fields of a pod, or of a template of pods, that decisions depend on.
///
/// A pod may have 3 MiB of JSON. The API's own types would take a hundred times as much memory for lists of
/// nearly empty objects; these take some ten times as much at the worst.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct PodFacts {
    #[serde(deserialize_with = "null_is_default")]
    pub metadata: Metadata,
    pub spec: Option<Spec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "an object")]
pub struct Metadata {
    pub name: Option<String>,
    pub generate_name: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    pub owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Owner {
    pub kind: String,
    pub name: String,
    pub controller: Option<bool>,
}

/// Lists are optional where a patch has to know whether they exist.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "an object")]
pub struct Spec {
    pub automount_service_account_token: Option<bool>,
    #[serde(deserialize_with = "null_is_default")]
    pub containers: Vec<Container>,
    pub host_network: Option<bool>,
    pub host_users: Option<bool>,
    pub image_pull_secrets: Option<Vec<Named>>,
    pub init_containers: Option<Vec<InitContainer>>,
    #[serde(deserialize_with = "null_is_default")]
    pub node_selector: BTreeMap<String, String>,
    pub os: Option<Named>,
    pub runtime_class_name: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub tolerations: Vec<Toleration>,
    pub volumes: Option<Vec<Volume>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct Container {
    pub name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "an object")]
pub struct Port {
    pub container_port: i32,
    pub protocol: Option<String>,
}

/// An init container. The loader's text is kept, to be compared with what would be added.
#[derive(Clone, Debug)]
pub struct InitContainer {
    pub container: Container,
    pub loader: Option<Box<RawValue>>,
}

/// An object of which the name is enough.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Named {
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Toleration {
    pub key: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct Volume {
    pub name: String,
    pub empty_dir: Option<IgnoredAny>,
}

impl Metadata {
    /// Annotations under our prefix, but for the one that the webhook writes itself.
    pub fn own_annotations(&self) -> impl Iterator<Item = (&String, &String)> {
        let annotations = self.annotations.iter();
        annotations.filter(|(name, _)| name.starts_with(PREFIX) && *name != STATUS)
    }

    /// Kind and name of the controller that made this object.
    pub fn controller(&self) -> Option<String> {
        let controller = self.owner_references.iter().find(|owner| owner.controller == Some(true));
        controller.map(|owner| format!("{}/{}", owner.kind, owner.name))
    }
}

impl Spec {
    /// The texts of all init containers that have the loader's name.
    pub fn loaders(&self) -> impl Iterator<Item = &RawValue> {
        self.init_containers.iter().flatten().filter_map(|init| init.loader.as_deref())
    }
}

impl<'de> Deserialize<'de> for InitContainer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let container: Container = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let loader = (container.name == LOADER).then_some(text);
        Ok(Self { container, loader })
    }
}

/// Reads `null` as the API server does: as a field that is absent.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
