//! From a pod to a decision. Nothing here reads a clock, a socket or the cluster.

use json_patch::Patch;
use k8s_openapi::api::core::v1::LocalObjectReference;
use ruleset::contract::{LOADER, NO_TOKEN_VOLUME};

use super::annotations::{self, InjectionRequest};
use super::container::{loader, no_token_volume};
use super::existing::Existing;
use super::patch::Addition;
use super::pod::{PodFacts, Spec};
use super::reason::{DenyReason, NotInjected, SkipReason};
use super::settings::Settings;
use super::warning::Warning;
use super::{placement, ports};

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

/// Decides about a pod that is being created.
///
/// The same pod always gets the same decision, a dry run's too. A pod that carries the loader already
/// is admitted as it is, so the API server may ask again after other webhooks changed the pod.
pub fn decide(pod: &PodFacts, settings: &Settings) -> Decision {
    match inject(pod, settings) {
        Ok((patch, warnings)) => Decision { verdict: Verdict::Inject(patch), warnings },
        Err(NotInjected::Skipped(reason)) => {
            let warnings = annotations::warnings_of_skipped(pod, &reason);
            Decision { verdict: Verdict::Skip(reason), warnings }
        }
        Err(NotInjected::Denied(reason)) => {
            Decision { verdict: Verdict::Deny(reason), warnings: Vec::new() }
        }
    }
}

fn inject(pod: &PodFacts, settings: &Settings) -> Result<(Patch, Vec<Warning>), NotInjected> {
    let request = InjectionRequest::read(pod)?;
    let spec = pod.spec.as_ref().ok_or(DenyReason::NoSpec)?;
    let mut warnings = placement::check(spec, &settings.deny_runtime_class)?;
    warnings.extend(request.warnings.iter().cloned());
    warnings.extend(ports::undeclared(&request, spec));

    // Without a token mounted anywhere, there is none to hide. The service account may say so as
    // well, but only the cluster knows it; hiding nothing does no harm.
    let hide_token = spec.automount_service_account_token != Some(false);
    let container = loader(&request, hide_token, settings);
    let existing = Existing::find(spec)?;
    // A volume that nothing would mount may have any name.
    let volume_needed =
        hide_token || existing.as_ref().is_some_and(Existing::mounts_no_token_volume);
    let volume_exists = volume_needed && volume_exists(spec)?;
    if spec.containers.iter().any(|other| other.name == LOADER) {
        return Err(DenyReason::NameTaken.into());
    }
    if let Some(existing) = existing {
        return Err(match existing.difference(&container) {
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
fn volume_exists(spec: &Spec) -> Result<bool, DenyReason> {
    let mut volumes = spec.volumes.iter().flatten();
    match volumes.find(|volume| volume.name == NO_TOKEN_VOLUME) {
        None => Ok(false),
        Some(volume) if volume.empty_dir.is_some() => Ok(true),
        Some(_) => Err(DenyReason::VolumeTaken),
    }
}

fn missing_pull_secret(spec: &Spec, settings: &Settings) -> Option<LocalObjectReference> {
    let name = settings.loader_pull_secret.as_ref()?;
    let mut secrets = spec.image_pull_secrets.iter().flatten();
    (!secrets.any(|secret| secret.name == *name))
        .then(|| LocalObjectReference { name: name.clone() })
}
