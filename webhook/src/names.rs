//! Every annotation and name that the webhook reads or writes.

/// Everything under this prefix is ours.
pub const PREFIX: &str = "sfunnel.io/";

/// Annotation: the rules for packets that come in.
pub const RULESET: &str = "sfunnel.io/ruleset";
/// Annotation: the rules for packets that go out.
pub const EGRESS_RULESET: &str = "sfunnel.io/egress-ruleset";
/// Annotation: the interfaces to attach to, separated by blanks.
pub const INTERFACES: &str = "sfunnel.io/interfaces";
/// Annotation: `"false"` opts a pod out.
pub const INJECT: &str = "sfunnel.io/inject";
/// Annotation that the patch sets. It informs people; nothing ever decides by it.
pub const STATUS: &str = "sfunnel.io/status";
/// The value of [`STATUS`].
pub const STATUS_INJECTED: &str = "injected";
/// All annotations with a meaning.
pub const ANNOTATIONS: [&str; 5] = [RULESET, EGRESS_RULESET, INTERFACES, INJECT, STATUS];

/// The init container that we add.
pub const LOADER: &str = "sfunnel-loader";
/// The empty volume that keeps the service account's token out of the loader.
pub const NO_TOKEN_VOLUME: &str = "sfunnel-no-token";

/// The loader's variable for [`RULESET`].
pub const RULESET_ENV: &str = "SFUNNEL_RULESET";
/// The loader's variable for [`EGRESS_RULESET`].
pub const EGRESS_RULESET_ENV: &str = "SFUNNEL_EGRESS_RULESET";
/// The loader's variable for [`INTERFACES`].
pub const INTERFACES_ENV: &str = "IFACES";
/// All variables that change what the loader does. `DEBUG` isn't among them: it only makes the loader
/// say more, and injectors set it for their own purposes in every container of a pod.
pub const LOADER_ENV: [&str; 8] = [
    RULESET_ENV,
    EGRESS_RULESET_ENV,
    INTERFACES_ENV,
    "CLEAN",
    "DIRECTION",
    "NETNS",
    "N_ATTEMPTS",
    "RETRY_DELAY",
];

/// Where the API server's ServiceAccount plugin mounts a token, unless the container already mounts
/// something there (`DefaultAPITokenMountPath` in its source).
pub const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The annotation by which the kubelet marks the API object of a static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
