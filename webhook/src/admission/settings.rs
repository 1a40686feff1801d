//! What the operator decides about injected containers.

use std::str::FromStr;

use super::quantity::MaybeQuantity;
use crate::names::subdomain;

/// What the operator decides about injected containers.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Loader")]
pub struct Settings {
    /// Image of the injected init container.
    #[arg(long, env = "SFUNNEL_LOADER_IMAGE", value_name = "IMAGE")]
    pub loader_image: Image,

    /// When the kubelet pulls the image.
    #[arg(
        long,
        env = "SFUNNEL_LOADER_PULL_POLICY",
        value_name = "POLICY",
        default_value = "IfNotPresent"
    )]
    pub loader_pull_policy: PullPolicy,

    /// Secret to pull the image with. It must exist in each pod's namespace.
    #[arg(long, env = "SFUNNEL_LOADER_PULL_SECRET", value_name = "SECRET", value_parser = subdomain)]
    pub loader_pull_secret: Option<String>,

    /// CPU that the loader requests, or `none`.
    #[arg(
        long,
        env = "SFUNNEL_LOADER_CPU_REQUEST",
        value_name = "QUANTITY",
        default_value = "10m"
    )]
    pub loader_cpu_request: MaybeQuantity,

    /// CPU that the loader may use, or `none`.
    #[arg(long, env = "SFUNNEL_LOADER_CPU_LIMIT", value_name = "QUANTITY", default_value = "none")]
    pub loader_cpu_limit: MaybeQuantity,

    /// Memory that the loader requests, or `none`.
    #[arg(
        long,
        env = "SFUNNEL_LOADER_MEMORY_REQUEST",
        value_name = "QUANTITY",
        default_value = "32Mi"
    )]
    pub loader_memory_request: MaybeQuantity,

    /// Memory that the loader may use, or `none`. The kernel charges it for the loader's tables too.
    #[arg(
        long,
        env = "SFUNNEL_LOADER_MEMORY_LIMIT",
        value_name = "QUANTITY",
        default_value = "128Mi"
    )]
    pub loader_memory_limit: MaybeQuantity,

    /// Inject it as a privileged container, on nodes that let no other one load BPF programs.
    #[arg(long, env = "SFUNNEL_LOADER_PRIVILEGED")]
    pub loader_privileged: bool,

    /// Runtime classes whose pods are denied, as their kernel isn't the node's. Repeat it, or
    /// separate names by commas.
    #[arg(long, env = "SFUNNEL_DENY_RUNTIME_CLASS", value_name = "NAME", value_delimiter = ',')]
    pub deny_runtime_class: Vec<String>,
}

/// Settings that make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The API server would refuse every injected pod.
    #[error("--{request_flag} {request} is more than --{limit_flag} {limit}")]
    RequestOverLimit {
        /// The flag of the request.
        request_flag: &'static str,
        /// Its value.
        request: String,
        /// The flag of the limit.
        limit_flag: &'static str,
        /// Its value.
        limit: String,
    },
    /// No container starts with it; `32m` is 32 thousandths of a byte.
    #[error(
        "--{flag} {value} is less than {min}, with which the loader can't start; memory is written such as 64Mi"
    )]
    LittleMemory {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// The least amount.
        min: &'static str,
    },
}

/// Container runtimes give up below a few MiB.
const LEAST_MEMORY: &str = "8Mi";

impl Settings {
    /// Checks what no value shows by itself.
    ///
    /// # Errors
    ///
    /// The flags that contradict each other, or the one that can't be meant.
    pub fn check(&self) -> Result<(), SettingsError> {
        let pairs = [
            (
                "loader-cpu-request",
                &self.loader_cpu_request,
                "loader-cpu-limit",
                &self.loader_cpu_limit,
            ),
            (
                "loader-memory-request",
                &self.loader_memory_request,
                "loader-memory-limit",
                &self.loader_memory_limit,
            ),
        ];
        for (request_flag, request, limit_flag, limit) in pairs {
            if let (Some(request), Some(limit)) = (&request.0, &limit.0)
                && request > limit
            {
                return Err(SettingsError::RequestOverLimit {
                    request_flag,
                    request: request.to_string(),
                    limit_flag,
                    limit: limit.to_string(),
                });
            }
        }
        if let Some(value) = &self.loader_memory_limit.0
            && LEAST_MEMORY.parse().is_ok_and(|least| *value < least)
        {
            return Err(SettingsError::LittleMemory {
                flag: "loader-memory-limit",
                value: value.to_string(),
                min: LEAST_MEMORY,
            });
        }
        Ok(())
    }
}

/// An image reference. Only what no reference can hold is refused; registries differ in the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(String);

/// Text that is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an image is such as registry.example/sfunnel-loader:1.0, without blanks")]
pub struct ImageError;

impl Image {
    /// The reference.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Image {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let valid = !text.is_empty()
            && text.is_ascii()
            && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        valid.then(|| Self(text.to_owned())).ok_or(ImageError)
    }
}

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PullPolicy {
    /// Each time a container starts.
    #[value(name = "Always")]
    Always,
    /// Unless the node has it.
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    /// Never.
    #[value(name = "Never")]
    Never,
}

impl PullPolicy {
    /// The value of `imagePullPolicy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    pub(crate) fn settings(flags: &[&str]) -> Result<Settings, String> {
        let settings =
            Cli::try_parse_from(["test", "--loader-image", "loader:1"].iter().chain(flags))
                .map_err(|error| error.to_string())?
                .settings;
        settings.check().map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn the_defaults_make_sense() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.loader_cpu_limit, MaybeQuantity(None));
        assert_eq!(settings.loader_pull_policy, PullPolicy::IfNotPresent);
    }

    #[test]
    fn privileges_have_to_be_asked_for() {
        assert!(settings(&["--loader-privileged"]).unwrap().loader_privileged);
        assert!(!settings(&[]).unwrap().loader_privileged);
    }

    #[test]
    fn runtime_classes_are_a_list() {
        let settings = settings(&["--deny-runtime-class", "kata,gvisor"]).unwrap();
        assert_eq!(settings.deny_runtime_class, ["kata", "gvisor"]);
    }

    #[test]
    fn nonsense_is_refused_by_the_flags_name() {
        assert_eq!(
            settings(&["--loader-memory-request", "1Gi"]).unwrap_err(),
            "--loader-memory-request 1Gi is more than --loader-memory-limit 128Mi"
        );
        assert_eq!(
            settings(&["--loader-memory-request", "none", "--loader-memory-limit", "64m"])
                .unwrap_err(),
            "--loader-memory-limit 64m is less than 8Mi, with which the loader can't start; \
             memory is written such as 64Mi"
        );
        for (flag, value) in [
            ("--loader-image", "two words"),
            ("--loader-pull-secret", "Reg_Cred"),
            ("--loader-pull-secret", "a..b"),
            ("--loader-pull-policy", "Sometimes"),
            ("--loader-cpu-limit", "1core"),
        ] {
            let flags = [flag, value];
            let error = Cli::try_parse_from(["test"].iter().chain(&flags)).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
    }
}
