//! What a pod asks for in its annotations.

use std::collections::BTreeMap;

use ruleset::Ruleset;
use ruleset::contract::{ANNOTATIONS, EGRESS_RULESET, INJECT, INTERFACES, PREFIX, RULESET, STATUS};

use super::pod::PodFacts;
use super::reason::{DenyReason, NotInjected, SkipReason};
use super::warning::Warning;

type Annotations = BTreeMap<String, String>;

/// The annotation by which the kubelet marks the API object of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod's request to be injected: at least one ruleset, all of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectionRequest {
    /// Rules for packets that come in.
    pub ingress: Option<Ruleset>,
    /// Rules for packets that go out.
    pub egress: Option<Ruleset>,
    /// Whether interfaces are named.
    pub interfaces: bool,
    /// What the author should know.
    pub warnings: Vec<Warning>,
}

impl InjectionRequest {
    /// Reads a pod's annotations and compiles its rulesets.
    ///
    /// # Errors
    ///
    /// Why the pod is left alone or denied.
    pub fn read(pod: &PodFacts) -> Result<Self, NotInjected> {
        let annotations = &pod.metadata.annotations;
        let get = |name: &str| annotations.get(name).map(String::as_str);

        if let Some(reason) = excused(annotations) {
            return Err(reason.into());
        }
        let inject = get(INJECT);
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
        let mut compiled = |annotation, text: Option<&str>| {
            text.map(|text| compile(annotation, text, &mut warnings)).transpose()
        };
        let (ingress, egress) = (compiled(RULESET, ruleset)?, compiled(EGRESS_RULESET, egress)?);
        if let Some(interfaces) = interfaces {
            ruleset::parse_interfaces(interfaces).map_err(DenyReason::Interfaces)?;
        }
        warnings.extend(unknown(annotations));
        Ok(Self { ingress, egress, interfaces: interfaces.is_some(), warnings })
    }
}

/// Why a pod is left alone whatever it asks for.
fn excused(annotations: &Annotations) -> Option<SkipReason> {
    if annotations.contains_key(MIRROR) {
        return Some(SkipReason::MirrorPod);
    }
    (annotations.get(INJECT)? == "false").then_some(SkipReason::OptedOut)
}

/// Bytes of the rulesets that [`InjectionRequest::read`] compiles, at the most.
pub fn ruleset_len(pod: &PodFacts) -> usize {
    let annotations = &pod.metadata.annotations;
    if excused(annotations).is_some() {
        return 0;
    }
    [RULESET, EGRESS_RULESET]
        .into_iter()
        .filter_map(|name| annotations.get(name))
        .map(String::len)
        .sum()
}

/// What the author of a pod should know that is admitted as it is: an annotation without effect, or one
/// that is misspelt, looks like a pod that works.
pub fn warnings_of_skipped(pod: &PodFacts, reason: &SkipReason) -> Vec<Warning> {
    let unknown = || unknown(&pod.metadata.annotations);
    match reason {
        SkipReason::InterfacesAlone => {
            [Warning::InterfacesAlone].into_iter().chain(unknown()).collect()
        }
        SkipReason::NoRuleset => unknown(),
        _ => Vec::new(),
    }
}

/// Unknown annotations that are named, at the most; the rest are counted.
const MAX_UNKNOWN: usize = 8;

fn unknown(annotations: &Annotations) -> Vec<Warning> {
    let mut names = annotations
        .keys()
        .filter(|name| name.starts_with(PREFIX) && !ANNOTATIONS.contains(&name.as_str()));
    let warning = |name: &String| Warning::UnknownAnnotation {
        name: name.clone(),
        resembles: resembling(name),
    };
    let mut warnings: Vec<_> = names.by_ref().take(MAX_UNKNOWN).map(warning).collect();
    match names.count() {
        0 => {}
        more => warnings.push(Warning::MoreUnknownAnnotations(more)),
    }
    warnings
}

/// The annotation that was meant, perhaps.
fn resembling(name: &str) -> Option<&'static str> {
    // STATUS is ours to write.
    let known = ANNOTATIONS.into_iter().filter(|known| *known != STATUS);
    // A long name is no misspelling, and would take long to compare.
    let known = known.filter(|known| name.len() <= known.len() + MOST_EDITS);
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(edits, _)| *edits <= MOST_EDITS)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}

/// Letters that are changed, left out, added or swapped in a misspelt name, at the most.
const MOST_EDITS: usize = 3;

fn compile(
    annotation: &'static str,
    text: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Ruleset, DenyReason> {
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
    let doubts = compiled.warnings.into_iter();
    warnings.extend(
        doubts.map(|diagnostic| Warning::Ruleset { annotation, diagnostic: Box::new(diagnostic) }),
    );
    Ok(compiled.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_among(count: usize) -> Vec<Warning> {
        let mut annotations: Annotations =
            (0..count).map(|n| (format!("{PREFIX}x{n:03}"), String::new())).collect();
        annotations.insert(RULESET.to_owned(), String::new());
        annotations.insert("example.com/x".to_owned(), String::new());
        unknown(&annotations)
    }

    #[test]
    fn unknown_annotations_are_named_up_to_a_number_and_then_counted() {
        assert_eq!(unknown_among(0), []);
        let name = "sfunnel.io/x000".to_owned();
        assert_eq!(unknown_among(1), [Warning::UnknownAnnotation { name, resembles: None }]);
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

    #[test]
    fn a_misspelt_name_is_known() {
        let check = |name: &str, expect| assert_eq!(resembling(&format!("{PREFIX}{name}")), expect);
        for name in ["rulesets", "Ruleset", "ruleset-", "rulset", "rulsete", "rule-set", "rules"] {
            check(name, Some(RULESET));
        }
        check("egress-rulesets", Some(EGRESS_RULESET));
        check("egressruleset", Some(EGRESS_RULESET));
        check("interface", Some(INTERFACES));
        check("injected", Some(INJECT));
        check("x", None);
        check("statuss", None);
        check(&"ruleset".repeat(10_000), None);
    }
}
