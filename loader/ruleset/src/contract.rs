//! What the webhook and the loader agree on: annotations, the loader's environment variables, and the
//! names of what is added to a pod.

/// The prefix of all annotations.
pub const PREFIX: &str = "sfunnel.io/";

/// Annotation: the rules for packets that come in.
pub const RULESET: &str = "sfunnel.io/ruleset";
/// Annotation: the rules for packets that go out.
pub const EGRESS_RULESET: &str = "sfunnel.io/egress-ruleset";
/// Annotation: the interfaces to attach to, separated by blanks.
pub const INTERFACES: &str = "sfunnel.io/interfaces";
/// Annotation: `"false"` opts a pod out.
pub const INJECT: &str = "sfunnel.io/inject";
/// Annotation that the patch sets, for people to see. No decision depends on it.
pub const STATUS: &str = "sfunnel.io/status";
/// The value of [`STATUS`].
pub const STATUS_INJECTED: &str = "injected";
/// All annotations with a meaning.
pub const ANNOTATIONS: [&str; 5] = [RULESET, EGRESS_RULESET, INTERFACES, INJECT, STATUS];

/// The init container that the webhook adds.
pub const LOADER: &str = "sfunnel-loader";
/// The empty volume that keeps the service account's token out of the loader.
pub const NO_TOKEN_VOLUME: &str = "sfunnel-no-token";

/// Environment variables of the loader. Those without `SFUNNEL_` are the original container's; it has no
/// `OFFLOAD`.
pub mod env {
    /// The value of [`RULESET`](super::RULESET).
    pub const RULESET: &str = "SFUNNEL_RULESET";
    /// The value of [`EGRESS_RULESET`](super::EGRESS_RULESET).
    pub const EGRESS_RULESET: &str = "SFUNNEL_EGRESS_RULESET";
    /// The value of [`INTERFACES`](super::INTERFACES).
    pub const INTERFACES: &str = "IFACES";
    /// Remove what is attached.
    pub const CLEAN: &str = "CLEAN";
    /// Which packets [`RULESET`] is for.
    pub const DIRECTION: &str = "DIRECTION";
    /// The network namespace.
    pub const NETNS: &str = "NETNS";
    /// How often to try while an interface is missing or busy.
    pub const ATTEMPTS: &str = "N_ATTEMPTS";
    /// Time between two attempts.
    pub const RETRY_DELAY: &str = "RETRY_DELAY";
    /// Whether segmentation offload is limited.
    pub const OFFLOAD: &str = "OFFLOAD";
    /// Log every step.
    pub const DEBUG: &str = "DEBUG";

    /// All variables that change what the loader does. [`DEBUG`] only adds log lines, and injectors set it
    /// for their own purposes in every container of a pod.
    pub const THAT_MATTER: [&str; 9] = [
        RULESET,
        EGRESS_RULESET,
        INTERFACES,
        CLEAN,
        DIRECTION,
        NETNS,
        ATTEMPTS,
        RETRY_DELAY,
        OFFLOAD,
    ];
}
