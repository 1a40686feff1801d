//! What the pod's author should know, although the pod is admitted.

use ruleset::Diagnostic;

use super::text::one_line;
use ruleset::contract::{EGRESS_RULESET, INJECT, INTERFACES, PREFIX, RULESET};

/// What the pod's author should know, although the pod is admitted. `Display` gives one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The compiler of rulesets wonders about a rule.
    #[error("annotation {annotation}: {}", diagnostic.summary())]
    Ruleset { annotation: &'static str, diagnostic: Box<Diagnostic> },
    #[error("annotation {INTERFACES} does nothing without {RULESET} or {EGRESS_RULESET}")]
    InterfacesAlone,
    #[error(
        "annotation {} is unknown and does nothing{}",
        one_line(name, 100),
        resembles.map(|known| format!("; did you mean {known}?")).unwrap_or_default()
    )]
    UnknownAnnotation { name: String, resembles: Option<&'static str> },
    #[error("{0} more annotations under {PREFIX} are unknown and do nothing")]
    MoreUnknownAnnotations(usize),
    /// A runtime class with the name of one that has a kernel of its own.
    #[error(
        "runtime class {} may have a kernel of its own; where that takes no eBPF, sfunnel-loader fails and \
         the pod won't start",
        one_line(.0, 100)
    )]
    SandboxRuntime(String),
    /// A node without a kubelet.
    #[error(
        "the pod may run on a virtual node; where that takes no eBPF, sfunnel-loader fails and the pod won't \
         start"
    )]
    VirtualNode,
    #[error(
        "the namespace enforces Pod Security baseline or restricted, which refuses pods with sfunnel-loader \
         (capabilities BPF and NET_ADMIN); it needs the label pod-security.kubernetes.io/enforce=privileged"
    )]
    PodSecurity,
    #[error("pods get no rules here: the namespace lacks the label {INJECT}=enabled")]
    NotEnabled,
    /// The annotation stands on a workload instead of its template.
    #[error(
        "annotation {annotation} does nothing here: move it to {template}.metadata.annotations"
    )]
    OnWorkload { annotation: &'static str, template: &'static str },
    /// The protocol is `TCP` or `UDP`.
    #[error(
        "annotation {RULESET} expects funnelled packets at {protocol} port {port}, which no container \
         declares; pods see a Service's targetPort, not its port"
    )]
    UndeclaredPort { protocol: &'static str, port: u16 },
    #[error(
        "the pod starts without its rules: sfunnel-loader was not added, or was taken out again (is the \
         MutatingWebhookConfiguration there?)"
    )]
    LoaderMissing,
    #[error(
        "a pod reads its rules when it starts: the changed annotations do nothing before the pod is made anew"
    )]
    RunningPod,
}

impl Warning {
    /// All words that [`Self::code`] returns.
    pub const CODES: [&str; 11] = [
        "ruleset",
        "interfaces-alone",
        "unknown-annotation",
        "sandbox-runtime",
        "virtual-node",
        "pod-security",
        "not-enabled",
        "on-workload",
        "undeclared-port",
        "loader-missing",
        "running-pod",
    ];

    /// A stable word for metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ruleset { .. } => "ruleset",
            Self::InterfacesAlone => "interfaces-alone",
            Self::UnknownAnnotation { .. } | Self::MoreUnknownAnnotations(_) => {
                "unknown-annotation"
            }
            Self::SandboxRuntime(_) => "sandbox-runtime",
            Self::VirtualNode => "virtual-node",
            Self::PodSecurity => "pod-security",
            Self::NotEnabled => "not-enabled",
            Self::OnWorkload { .. } => "on-workload",
            Self::UndeclaredPort { .. } => "undeclared-port",
            Self::LoaderMissing => "loader-missing",
            Self::RunningPod => "running-pod",
        }
    }
}

/// Characters of one warning that the API server passes on for sure (`truncateItemRunes` in
/// `k8s.io/apiserver/pkg/endpoints/filters/warning.go`).
pub const MAX_ONE: usize = 256;
/// Characters of all warnings together (`truncateAtTotalRunes`, same file).
pub const MAX_ALL: usize = 4096;

/// The warnings as the API server passes them on: one line each, as it drops a warning with a control
/// character, and within its limits. What doesn't fit is counted in the last one.
pub fn within_limits(warnings: &[Warning]) -> Vec<String> {
    let size = |line: &str| line.chars().count();
    let (mut lines, mut total) = (Vec::new(), 0);
    // A ruleset of thousands of rules can have as many warnings: what follows the limit isn't even
    // written.
    for warning in warnings {
        let line = one_line(&warning.to_string(), MAX_ONE);
        if total + size(&line) > MAX_ALL {
            break;
        }
        total += size(&line);
        lines.push(line);
    }
    if lines.len() == warnings.len() {
        return lines;
    }
    // The count needs room as well.
    loop {
        let more = format!("{} more warnings are not shown", warnings.len() - lines.len());
        if total + more.len() <= MAX_ALL {
            lines.push(more);
            return lines;
        }
        total -= lines.pop().as_deref().map_or(0, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(name: String) -> Warning {
        Warning::UnknownAnnotation { name, resembles: None }
    }

    #[test]
    fn all_words_are_listed() {
        let annotation = "sfunnel.io/ruleset";
        let twice = ruleset::compile("tcp actions drop; tcp actions drop").unwrap();
        let diagnostic = Box::new(twice.warnings[0].clone());
        let mut codes = [
            Warning::Ruleset { annotation, diagnostic },
            Warning::InterfacesAlone,
            unknown("x".to_owned()),
            Warning::SandboxRuntime("kata".to_owned()),
            Warning::VirtualNode,
            Warning::PodSecurity,
            Warning::NotEnabled,
            Warning::OnWorkload { annotation, template: "spec.template" },
            Warning::UndeclaredPort { protocol: "TCP", port: 80 },
            Warning::LoaderMissing,
            Warning::RunningPod,
        ]
        .map(|warning| {
            let text = warning.to_string();
            assert!(text.chars().count() <= MAX_ONE, "{text}");
            warning.code()
        });
        let mut listed = Warning::CODES;
        codes.sort_unstable();
        listed.sort_unstable();
        assert_eq!(codes, listed);
        assert_eq!(Warning::MoreUnknownAnnotations(1).code(), unknown("x".to_owned()).code());
    }

    #[test]
    fn few_warnings_stay() {
        let lines = within_limits(&[Warning::VirtualNode, Warning::InterfacesAlone]);
        assert_eq!(
            lines[1],
            "annotation sfunnel.io/interfaces does nothing without sfunnel.io/ruleset or sfunnel.io/egress-ruleset"
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_warning_is_one_line_whatever_it_quotes() {
        let name = format!("sfunnel.io/a\nb\u{1b}{}", "ü".repeat(500));
        let lines = within_limits(&[unknown(name)]);
        assert!(lines[0].starts_with("annotation sfunnel.io/a\\nb\\u{1b}üü"), "{}", lines[0]);
        assert!(lines[0].ends_with("ü… is unknown and does nothing"));
        assert!(!lines[0].contains(char::is_control) && lines[0].chars().count() <= MAX_ONE);
    }

    #[test]
    fn many_warnings_are_counted() {
        let warnings = vec![unknown("ü".repeat(90)); 100];
        let lines = within_limits(&warnings);
        let size: usize = lines.iter().map(|line| line.chars().count()).sum();
        assert!(size <= MAX_ALL, "{size}");
        let shown = lines.len() - 1;
        assert_eq!(lines[shown], format!("{} more warnings are not shown", 100 - shown));
        // One more would have been too many.
        assert!(size + lines[0].chars().count() > MAX_ALL, "{size}");
    }

    #[test]
    fn warnings_that_just_fit_are_all_shown() {
        let warning = unknown("ü".repeat(89));
        assert_eq!(warning.to_string().chars().count(), MAX_ALL / 32);
        let mut warnings = vec![warning; 32];
        assert_eq!(within_limits(&warnings).len(), 32);
        // The count takes the room of one that would have fitted.
        warnings.push(Warning::VirtualNode);
        let lines = within_limits(&warnings);
        assert_eq!((lines.len(), lines[31].as_str()), (32, "2 more warnings are not shown"));
    }
}
