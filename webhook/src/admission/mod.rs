//! From the bytes of a review to the bytes of its response. Everything here is pure: no clock, no socket, no
//! cluster.
//!
//! ```text
//! bytes -> review -> PodFacts or Workload -> decide -> Decision -> response -> bytes
//!                                              |
//!               annotations, placement, ports, existing, container, patch
//! ```

mod annotations;
mod container;
pub mod decision;
pub mod endpoint;
mod existing;
mod patch;
mod placement;
pub mod pod;
mod ports;
pub mod quantity;
pub mod reason;
pub mod response;
pub mod review;
pub mod settings;
pub mod text;
mod validation;
pub mod warning;
pub mod workload;

use decision::{Decision, Verdict};
use endpoint::{Namespace, Webhook};
use review::{Review, Subject};
use settings::Settings;
use warning::Warning;

/// Decides about the object of a review.
pub fn decide(review: &Review, settings: &Settings) -> Decision {
    let namespace = review.endpoint.namespace;
    match (&review.subject, review.endpoint.webhook) {
        (Subject::Other(reason), _) => reason.clone().into(),
        (Subject::Pod(pod), Webhook::Validate) => validation::pod(pod, namespace, settings),
        (Subject::Pod(pod), Webhook::Mutate) => {
            let mut decision = decision::decide(pod, settings);
            let injected = matches!(decision.verdict, Verdict::Inject(_));
            if injected && namespace == Namespace::Enforced {
                decision.warnings.push(Warning::PodSecurity);
            }
            decision
        }
        (Subject::RunningPod { after, before }, _) => validation::running_pod(after, before),
        (Subject::Workload { resource, after, before }, _) => {
            validation::workload(resource, after, before.as_deref(), namespace, settings)
        }
    }
}
