//! What a pod asks for in its annotations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::decision::Stop;
use crate::names::{ANNOTATIONS, EGRESS_RULESET, INJECT, INTERFACES, MIRROR, PREFIX, RULESET};
use crate::reason::{DenyReason, SkipReason};
use crate::warning::Warning;

/// What a pod asks for: at least one ruleset, all of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Whether there are rules for packets that come in.
    pub ruleset: bool,
    /// Whether there are rules for packets that go out.
    pub egress_ruleset: bool,
    /// Whether interfaces are named.
    pub interfaces: bool,
    /// What the author should know.
    pub warnings: Vec<Warning>,
}

impl Wishes {
    /// Reads a pod's annotations and compiles its rulesets.
    ///
    /// # Errors
    ///
    /// Why the pod is left alone or denied.
    pub fn read(pod: &Pod) -> Result<Self, Stop> {
        let none = BTreeMap::new();
        let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
        let get = |name: &str| annotations.get(name).map(String::as_str);

        if annotations.contains_key(MIRROR) {
            return Err(SkipReason::MirrorPod.into());
        }
        let inject = get(INJECT);
        if inject == Some("false") {
            return Err(SkipReason::OptedOut.into());
        }
        let (ruleset, egress, interfaces) = (get(RULESET), get(EGRESS_RULESET), get(INTERFACES));
        if ruleset.is_none() && egress.is_none() {
            return Err(match interfaces {
                Some(_) => SkipReason::InterfacesAlone,
                None => SkipReason::NoRuleset,
            }
            .into());
        }
        // "False" or "no" can mean both; a guess would surprise somebody.
        if let Some(value) = inject.filter(|value| *value != "true") {
            let value = value.to_owned();
            return Err(DenyReason::Inject { value }.into());
        }

        let mut warnings = Vec::new();
        for (annotation, text) in [(RULESET, ruleset), (EGRESS_RULESET, egress)] {
            if let Some(text) = text {
                warnings.extend(compile(annotation, text)?);
            }
        }
        if let Some(interfaces) = interfaces {
            ruleset::parse_interfaces(interfaces).map_err(DenyReason::Interfaces)?;
        }
        warnings.extend(
            annotations
                .keys()
                .filter(|name| name.starts_with(PREFIX) && !ANNOTATIONS.contains(&name.as_str()))
                .map(|name| Warning::UnknownAnnotation(name.clone())),
        );
        Ok(Self {
            ruleset: ruleset.is_some(),
            egress_ruleset: egress.is_some(),
            interfaces: interfaces.is_some(),
            warnings,
        })
    }
}

fn compile(annotation: &'static str, text: &str) -> Result<Vec<Warning>, DenyReason> {
    if text.len() > ruleset::MAX_ENV_TEXT {
        return Err(DenyReason::TooLong {
            annotation,
            len: text.len(),
            max: ruleset::MAX_ENV_TEXT,
        });
    }
    let compiled = ruleset::compile(text).map_err(|diagnostic| DenyReason::Ruleset {
        annotation,
        diagnostic: Box::new(diagnostic),
    })?;
    let warnings = compiled.warnings.into_iter();
    Ok(warnings
        .map(|diagnostic| Warning::Ruleset { annotation, diagnostic: Box::new(diagnostic) })
        .collect())
}
