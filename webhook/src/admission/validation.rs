//! What a validating webhook says of objects that are, or make, pods. Nothing here reads a clock, a
//! socket or the cluster.
//!
//! A pod is refused when it is made; by then its author has seen a Deployment accepted. So the template is
//! judged with the Deployment, exactly as its pods will be. Only mistakes of the author are denied, and
//! only where they were just made: a controller that scales an old ReplicaSet down must not fail on them.

use super::decision::{Decision, Verdict, decide};
use super::endpoint::Namespace;
use super::pod::{Metadata, PodFacts};
use super::reason::{DenyReason, SkipReason};
use super::settings::Settings;
use super::warning::Warning;
use super::workload::{Resource, Workload};

/// Decides about a workload that is created or, with `before`, updated.
pub fn workload(
    resource: &Resource,
    workload: &Workload,
    before: Option<&Workload>,
    namespace: Namespace,
    settings: &Settings,
) -> Decision {
    let template = resource.template;
    let misplaced = || {
        let misplaced = workload.misplaced().into_iter();
        misplaced.map(|annotation| Warning::OnWorkload { annotation, template })
    };
    if let Some(before) = before.filter(|before| workload.same_template(before)) {
        let warnings = match workload.same_annotations(before) {
            true => Vec::new(),
            false => misplaced().collect(),
        };
        return Decision { verdict: Verdict::Skip(SkipReason::Unchanged), warnings };
    }
    let Decision { verdict, mut warnings } = decide(workload.pod(), settings);
    warnings.extend(misplaced());
    let verdict = match verdict {
        Verdict::Skip(reason) => Verdict::Skip(reason),
        _ if namespace == Namespace::Unlabelled => {
            return Decision {
                verdict: Verdict::Skip(SkipReason::NotEnabled),
                warnings: vec![Warning::NotEnabled],
            };
        }
        Verdict::Deny(reason) => {
            warnings.clear();
            Verdict::Deny(DenyReason::InTemplate { template, reason: Box::new(reason) })
        }
        Verdict::Inject(_) | Verdict::Valid => Verdict::Valid,
    };
    if verdict == Verdict::Valid && namespace == Namespace::Enforced {
        warnings.push(Warning::PodSecurity);
    }
    Decision { verdict, warnings }
}

/// Decides about a pod that is created, after all mutating webhooks.
pub fn pod(pod: &PodFacts, namespace: Namespace, settings: &Settings) -> Decision {
    let skipped = |reason, warnings| Decision { verdict: Verdict::Skip(reason), warnings };
    let unlabelled = namespace == Namespace::Unlabelled;
    let Decision { verdict, warnings } = decide(pod, settings);
    match verdict {
        // Elsewhere, they were told when the pod was mutated.
        Verdict::Skip(reason) => skipped(reason, if unlabelled { warnings } else { Vec::new() }),
        _ if unlabelled => skipped(SkipReason::NotEnabled, vec![Warning::NotEnabled]),
        // In a rolling update of this webhook, a replica with other settings may have added it.
        Verdict::Deny(_) if pod.spec.iter().any(|spec| spec.loaders().next().is_some()) => {
            SkipReason::AlreadyInjected.into()
        }
        Verdict::Deny(_) => Decision { verdict, warnings: Vec::new() },
        Verdict::Inject(_) | Verdict::Valid => {
            Decision { verdict: Verdict::Valid, warnings: vec![Warning::LoaderMissing] }
        }
    }
}

/// Decides about an update of a pod, which runs, or is about to.
pub fn running_pod(after: &Metadata, before: &Metadata) -> Decision {
    let warnings = match after.own_annotations().eq(before.own_annotations()) {
        true => Vec::new(),
        false => vec![Warning::RunningPod],
    };
    Decision { verdict: Verdict::Skip(SkipReason::NotCreation), warnings }
}
