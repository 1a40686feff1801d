//! Why a pod is left alone, and why it is denied.

use ruleset::contract::{EGRESS_RULESET, INJECT, INTERFACES, LOADER, NO_TOKEN_VOLUME, RULESET};
use ruleset::{Diagnostic, InterfaceError};

use super::text::one_line;

/// Why a pod gets no patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotInjected {
    /// It is admitted as it is.
    Skipped(SkipReason),
    /// It is not admitted.
    Denied(DenyReason),
}

impl From<SkipReason> for NotInjected {
    fn from(reason: SkipReason) -> Self {
        Self::Skipped(reason)
    }
}

impl From<DenyReason> for NotInjected {
    fn from(reason: DenyReason) -> Self {
        Self::Denied(reason)
    }
}

/// Why a pod is admitted as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// An UPDATE, DELETE or CONNECT. A pod's init containers can't change after its creation.
    #[error("only the creation of pods matters")]
    NotCreation,
    /// A subresource such as `ephemeralcontainers`, `binding` or `exec`.
    #[error("only pods themselves matter, not their subresources")]
    SubResource,
    /// The API object of a static pod: the pod runs already, and the kubelet would see a difference.
    #[error("the pod mirrors a static pod of the kubelet")]
    MirrorPod,
    /// The pod opts out.
    #[error("annotation {INJECT} is \"false\"")]
    OptedOut,
    /// Nothing of ours in the annotations.
    #[error("neither {RULESET} nor {EGRESS_RULESET} is there")]
    NoRuleset,
    /// Interfaces are named, but no ruleset.
    #[error("{INTERFACES} is there, but neither {RULESET} nor {EGRESS_RULESET}")]
    InterfacesAlone,
    /// The loader is there already, as we would add it.
    #[error("{LOADER} is there already")]
    AlreadyInjected,
    /// An update that leaves alone what concerns us.
    #[error("the update changes nothing that matters")]
    Unchanged,
    /// Nothing is injected in this namespace.
    #[error("the namespace lacks the label {INJECT}=enabled")]
    NotEnabled,
}

impl SkipReason {
    /// A stable word for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotCreation => "not-creation",
            Self::SubResource => "subresource",
            Self::MirrorPod => "mirror-pod",
            Self::OptedOut => "opted-out",
            Self::NoRuleset => "no-ruleset",
            Self::InterfacesAlone => "interfaces-alone",
            Self::AlreadyInjected => "already-injected",
            Self::Unchanged => "unchanged",
            Self::NotEnabled => "not-enabled",
        }
    }
}

/// Why a pod is denied. `Display` is the message for the pod's author: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenyReason {
    /// `sfunnel.io/inject` is neither `true` nor `false`.
    #[error("annotation {INJECT} is {:?}; write \"true\" or \"false\"", one_line(value, 64))]
    Inject {
        /// Its value.
        value: String,
    },
    /// A ruleset that doesn't compile.
    #[error("annotation {annotation} holds no valid ruleset\n{diagnostic}")]
    Ruleset {
        /// The annotation that holds it.
        annotation: &'static str,
        /// What is wrong, and where.
        diagnostic: Box<Diagnostic>,
    },
    /// A ruleset that is too long to be handed to the loader.
    #[error(
        "annotation {annotation} has {len} bytes; at most {max} can be handed to the loader in an \
         environment variable. Use sets and ranges, as in `dport {{ 443, 8000-8999 }}`"
    )]
    TooLong {
        /// The annotation that holds it.
        annotation: &'static str,
        /// Its bytes.
        len: usize,
        /// Bytes at the most.
        max: usize,
    },
    /// A name that no interface can have.
    #[error("annotation {INTERFACES}: {0}")]
    Interfaces(InterfaceError),
    /// The pod has no spec. The API server would refuse it as well.
    #[error("the pod has no spec")]
    NoSpec,
    /// The program would be attached to the node's interfaces.
    #[error(
        "the pod has hostNetwork: true, so that its rulesets would apply to the whole node; remove \
         hostNetwork, or the annotations {RULESET} and {EGRESS_RULESET}"
    )]
    HostNetwork,
    /// No eBPF there.
    #[error(
        "the pod is for Windows ({field}), and sfunnel needs Linux; remove the annotations {RULESET} and {EGRESS_RULESET}"
    )]
    Windows {
        /// The field that says so.
        field: &'static str,
    },
    /// `CAP_BPF` and `CAP_NET_ADMIN` count in the initial user namespace alone.
    #[error(
        "the pod has hostUsers: false, and in a user namespace of its own nobody may load eBPF \
         programs; remove hostUsers, or the annotations {RULESET} and {EGRESS_RULESET}"
    )]
    UserNamespace,
    /// The operator listed the runtime class.
    #[error(
        "the pod has runtimeClassName: {:?}, in which sfunnel doesn't work on this cluster \
         (--deny-runtime-class of sfunnel-webhook); use another runtime class, or remove the \
         annotations {RULESET} and {EGRESS_RULESET}",
        one_line(class, 64)
    )]
    RuntimeClass {
        /// Its name.
        class: String,
    },
    /// An app container has the loader's name, which must be unique in the pod.
    #[error(
        "a container is called {LOADER}, which is the name of the init container that is to be added; rename it"
    )]
    NameTaken,
    /// An init container has the loader's name, but isn't the loader.
    #[error(
        "the pod has an init container {LOADER} that is not the one to be added: {difference}; \
         remove it, and it is added as it should be. While sfunnel is being updated, its replicas may \
         disagree for a moment: then try again"
    )]
    LoaderDiffers {
        /// The first difference.
        difference: String,
    },
    /// A volume has our volume's name, but isn't ours.
    #[error(
        "volume {NO_TOKEN_VOLUME} is not an emptyDir, which is what is to be added under this name; rename it"
    )]
    VolumeTaken,
    /// Pods of this template would be denied.
    #[error("{template}: {reason}")]
    InTemplate {
        /// Where the workload has its template.
        template: &'static str,
        /// Why its pods would be denied.
        reason: Box<DenyReason>,
    },
}

impl DenyReason {
    /// The reason for a log line: a ruleset's mistake is named and placed, but not drawn.
    pub fn summary(&self) -> String {
        match self {
            Self::Ruleset { annotation, diagnostic } => {
                format!("annotation {annotation}: {}", diagnostic.summary())
            }
            Self::InTemplate { template, reason } => format!("{template}: {}", reason.summary()),
            other => other.to_string(),
        }
    }

    /// A stable word for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Inject { .. } => "bad-inject",
            Self::Ruleset { .. } => "bad-ruleset",
            Self::TooLong { .. } => "ruleset-too-long",
            Self::Interfaces(_) => "bad-interfaces",
            Self::NoSpec => "no-spec",
            Self::HostNetwork => "host-network",
            Self::Windows { .. } => "windows",
            Self::UserNamespace => "user-namespace",
            Self::RuntimeClass { .. } => "runtime-class",
            Self::NameTaken => "name-taken",
            Self::LoaderDiffers { .. } => "loader-differs",
            Self::VolumeTaken => "volume-taken",
            Self::InTemplate { reason, .. } => reason.code(),
        }
    }
}
