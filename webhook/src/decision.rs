//! From a pod to a decision. Nothing here reads a clock, a socket or the cluster.

use json_patch::Patch;
use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, PodSpec};
use kube::core::admission::Operation;

use crate::annotations::Wishes;
use crate::container::{difference, loader, mounts_no_token_volume, no_token_volume};
use crate::names::{LOADER, NO_TOKEN_VOLUME};
use crate::patch::Addition;
use crate::placement;
use crate::reason::{DenyReason, SkipReason};
use crate::settings::Settings;
use crate::warning::Warning;

/// What happens to a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is admitted as it is.
    Skip(SkipReason),
    /// It is admitted with changes.
    Patch(Patch, Vec<Warning>),
    /// It is not admitted.
    Deny(DenyReason),
}

impl Decision {
    /// What the pod's author should know although the pod is admitted.
    pub fn warnings(&self) -> &[Warning] {
        match self {
            Self::Skip(SkipReason::InterfacesAlone) => &[Warning::InterfacesAlone],
            Self::Patch(_, warnings) => warnings,
            Self::Skip(_) | Self::Deny(_) => &[],
        }
    }
}

/// What the request says beside the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// What is done to the pod.
    pub operation: Operation,
    /// The part of the pod that it is done to, such as `ephemeralcontainers`; `None` is the pod itself.
    pub sub_resource: Option<String>,
}

impl RequestFacts {
    /// Why a request doesn't concern us, whatever its object is.
    pub fn skip(&self) -> Option<SkipReason> {
        if self.operation != Operation::Create {
            return Some(SkipReason::NotCreation);
        }
        self.sub_resource.as_ref().map(|_| SkipReason::SubResource)
    }
}

/// Why a pod gets no patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is admitted as it is.
    Skip(SkipReason),
    /// It is not admitted.
    Deny(DenyReason),
}

impl From<SkipReason> for Stop {
    fn from(reason: SkipReason) -> Self {
        Self::Skip(reason)
    }
}

impl From<DenyReason> for Stop {
    fn from(reason: DenyReason) -> Self {
        Self::Deny(reason)
    }
}

/// Decides about a pod.
///
/// The same pod always gets the same decision, a dry run's too. A pod that carries the loader already
/// is admitted as it is, so the API server may ask again after other webhooks changed the pod.
pub fn decide(pod: &Pod, facts: &RequestFacts, settings: &Settings) -> Decision {
    match inject(pod, facts, settings) {
        Ok((patch, warnings)) => Decision::Patch(patch, warnings),
        Err(Stop::Skip(reason)) => Decision::Skip(reason),
        Err(Stop::Deny(reason)) => Decision::Deny(reason),
    }
}

fn inject(
    pod: &Pod,
    facts: &RequestFacts,
    settings: &Settings,
) -> Result<(Patch, Vec<Warning>), Stop> {
    if let Some(reason) = facts.skip() {
        return Err(reason.into());
    }
    let wishes = Wishes::read(pod)?;
    let spec = pod.spec.as_ref().ok_or(DenyReason::NoSpec)?;
    let mut warnings = placement::check(spec, &settings.deny_runtime_class)?;
    warnings.extend(wishes.warnings.iter().cloned());

    // Without a token mounted anywhere, there is none to hide. The service account may say so as
    // well, but only the cluster knows it; hiding nothing does no harm.
    let hide_token = spec.automount_service_account_token != Some(false);
    let container = loader(&wishes, hide_token, settings);
    let loaders: Vec<_> =
        spec.init_containers.iter().flatten().filter(|other| other.name == LOADER).collect();
    // What nobody would mount may be called as it likes.
    let volume_needed = hide_token || loaders.iter().any(|found| mounts_no_token_volume(found));
    let volume_exists = volume_needed && volume_exists(spec)?;
    if spec.containers.iter().any(|other| other.name == LOADER) {
        return Err(DenyReason::NameTaken.into());
    }
    if !loaders.is_empty() {
        return Err(match loaders.into_iter().find_map(|found| difference(&container, found)) {
            Some(difference) => DenyReason::LoaderDiffers { difference }.into(),
            None => SkipReason::AlreadyInjected.into(),
        });
    }

    let addition = Addition {
        container,
        volume: (hide_token && !volume_exists).then(no_token_volume),
        pull_secret: missing_pull_secret(spec, settings),
    };
    Ok((addition.patch(spec), warnings))
}

/// Whether the volume over the token is there already, or something else has its name.
fn volume_exists(spec: &PodSpec) -> Result<bool, DenyReason> {
    let mut volumes = spec.volumes.iter().flatten();
    match volumes.find(|volume| volume.name == NO_TOKEN_VOLUME) {
        None => Ok(false),
        Some(volume) if volume.empty_dir.is_some() => Ok(true),
        Some(_) => Err(DenyReason::VolumeTaken),
    }
}

fn missing_pull_secret(spec: &PodSpec, settings: &Settings) -> Option<LocalObjectReference> {
    let name = settings.loader_pull_secret.as_ref()?.as_str();
    let mut secrets = spec.image_pull_secrets.iter().flatten();
    (!secrets.any(|secret| secret.name == name))
        .then(|| LocalObjectReference { name: name.to_owned() })
}
