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
        warnings.extend(unknown(annotations));
        Ok(Self {
            ruleset: ruleset.is_some(),
            egress_ruleset: egress.is_some(),
            interfaces: interfaces.is_some(),
            warnings,
        })
    }
}

/// Unknown annotations that are named, at the most; the rest are counted.
const MAX_UNKNOWN: usize = 8;

fn unknown(annotations: &BTreeMap<String, String>) -> Vec<Warning> {
    let mut names = annotations
        .keys()
        .filter(|name| name.starts_with(PREFIX) && !ANNOTATIONS.contains(&name.as_str()));
    let mut warnings: Vec<_> =
        names.by_ref().take(MAX_UNKNOWN).cloned().map(Warning::UnknownAnnotation).collect();
    match names.count() {
        0 => {}
        more => warnings.push(Warning::MoreUnknownAnnotations(more)),
    }
    warnings
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

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_among(count: usize) -> Vec<Warning> {
        let mut annotations: BTreeMap<_, _> =
            (0..count).map(|n| (format!("{PREFIX}x{n:03}"), String::new())).collect();
        annotations.insert(RULESET.to_owned(), String::new());
        annotations.insert("example.com/x".to_owned(), String::new());
        unknown(&annotations)
    }

    #[test]
    fn unknown_annotations_are_named_up_to_a_number_and_then_counted() {
        assert_eq!(unknown_among(0), []);
        assert_eq!(unknown_among(1), [Warning::UnknownAnnotation("sfunnel.io/x000".to_owned())]);
        let all_named = unknown_among(MAX_UNKNOWN);
        assert_eq!(all_named.len(), MAX_UNKNOWN);
        let with_count = unknown_among(100);
        assert_eq!(with_count[..MAX_UNKNOWN], all_named);
        assert_eq!(
            with_count[MAX_UNKNOWN].to_string(),
            "92 more annotations under sfunnel.io/ are unknown and do nothing"
        );
        assert_eq!(with_count.len(), MAX_UNKNOWN + 1);
    }
}
