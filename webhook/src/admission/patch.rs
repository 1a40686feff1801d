//! The JSON Patch (RFC 6902) that turns a pod into an injected one.
//!
//! It is constructed, never computed as a difference: what it doesn't name stays as it is, fields that
//! this program has never heard of included.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::{Container, LocalObjectReference, Volume};
use ruleset::contract::{STATUS, STATUS_INJECTED};
use serde::Serialize;
use serde_json::Value;

use super::pod::Spec;

/// What is to be added to a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// Becomes the first init container.
    pub container: Container,
    /// Becomes the last volume.
    pub volume: Option<Volume>,
    /// Becomes the last pull secret.
    pub pull_secret: Option<LocalObjectReference>,
}

impl Addition {
    /// The patch for a pod that has annotations and `spec`.
    pub fn patch(&self, spec: &Spec) -> Patch {
        let mut operations =
            vec![insert("initContainers", spec.init_containers.is_some(), "0", &self.container)];
        if let Some(volume) = &self.volume {
            operations.push(insert("volumes", spec.volumes.is_some(), "-", volume));
        }
        if let Some(secret) = &self.pull_secret {
            operations.push(insert(
                "imagePullSecrets",
                spec.image_pull_secrets.is_some(),
                "-",
                secret,
            ));
        }
        operations.push(add(&["metadata", "annotations", STATUS], STATUS_INJECTED.into()));
        Patch(operations)
    }
}

/// Adds one item to a list of the spec. A list that is absent or null is added with the item in it;
/// to a list that is there, even an empty one, only the item is added.
fn insert(list: &str, exists: bool, position: &str, item: &impl Serialize) -> PatchOperation {
    let item = serde_json::to_value(item).expect("API types are plain data");
    match exists {
        true => add(&["spec", list, position], item),
        false => add(&["spec", list], Value::Array(vec![item])),
    }
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    // from_tokens escapes the `/` in an annotation's name (RFC 6901, section 3).
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Add(AddOperation { path, value })
}
