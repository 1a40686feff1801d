//! From a pod to a decision. Nothing here reads a clock, a socket or the cluster.

use json_patch::Patch;
use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, PodSpec};

use crate::annotations::{self, Wishes};
use crate::container::{difference, loader, mounts_no_token_volume, no_token_volume};
use crate::names::{LOADER, NO_TOKEN_VOLUME};
use crate::patch::Addition;
use crate::reason::{DenyReason, SkipReason};
use crate::settings::Settings;
use crate::warning::Warning;
use crate::{placement, ports};

/// What happens to an object, and what its author should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// What the author should know although the object is admitted. Nothing beside a denial.
    pub warnings: Vec<Warning>,
}

/// What happens to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is admitted with the loader.
    Inject(Patch),
    /// It is admitted, as it is right.
    Valid,
    /// It is admitted as it is.
    Skip(SkipReason),
    /// It is not admitted.
    Deny(DenyReason),
}

impl Verdict {
    /// A stable word for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Inject(_) => "injected",
            Self::Valid => "valid",
            Self::Skip(_) => "skipped",
            Self::Deny(_) => "denied",
        }
    }

    /// A stable word for why.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Inject(_) | Self::Valid => "annotated",
            Self::Skip(reason) => reason.code(),
            Self::Deny(reason) => reason.code(),
        }
    }
}

impl From<SkipReason> for Decision {
    fn from(reason: SkipReason) -> Self {
        Self { verdict: Verdict::Skip(reason), warnings: Vec::new() }
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

/// Decides about a pod that is being created.
///
/// The same pod always gets the same decision, a dry run's too. A pod that carries the loader already
/// is admitted as it is, so the API server may ask again after other webhooks changed the pod.
pub fn decide(pod: &Pod, settings: &Settings) -> Decision {
    match inject(pod, settings) {
        Ok((patch, warnings)) => Decision { verdict: Verdict::Inject(patch), warnings },
        Err(Stop::Skip(reason)) => {
            let warnings = annotations::warnings_of_skipped(pod, &reason);
            Decision { verdict: Verdict::Skip(reason), warnings }
        }
        Err(Stop::Deny(reason)) => {
            Decision { verdict: Verdict::Deny(reason), warnings: Vec::new() }
        }
    }
}

fn inject(pod: &Pod, settings: &Settings) -> Result<(Patch, Vec<Warning>), Stop> {
    let wishes = Wishes::read(pod)?;
    let spec = pod.spec.as_ref().ok_or(DenyReason::NoSpec)?;
    let mut warnings = placement::check(spec, &settings.deny_runtime_class)?;
    warnings.extend(wishes.warnings.iter().cloned());
    warnings.extend(ports::undeclared(&wishes, spec));

    // Without a token mounted anywhere, there is none to hide. The service account may say so as
    // well, but only the cluster knows it; hiding nothing does no harm.
    let hide_token = spec.automount_service_account_token != Some(false);
    let container = loader(&wishes, hide_token, settings);
    let loaders: Vec<_> =
        spec.init_containers.iter().flatten().filter(|other| other.name == LOADER).collect();
    if loaders.len() > 1 {
        let difference = "it is there more than once".to_owned();
        return Err(DenyReason::LoaderDiffers { difference }.into());
    }
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
