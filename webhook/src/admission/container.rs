//! The init container `sfunnel-loader` that is added to pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector,
    ResourceRequirements, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use ruleset::contract::{EGRESS_RULESET, INTERFACES, LOADER, NO_TOKEN_VOLUME, RULESET, env};

use super::annotations::InjectionRequest;
use super::quantity::MaybeQuantity;
use super::settings::Settings;

/// Where the API server's ServiceAccount plugin mounts a token, unless the container already mounts
/// something there (`DefaultAPITokenMountPath` in its source).
pub const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The loader container for a pod. `hide_token` mounts the empty volume over the service account's
/// token.
pub fn loader(request: &InjectionRequest, hide_token: bool, settings: &Settings) -> Container {
    Container {
        name: LOADER.to_owned(),
        image: Some(settings.loader_image.as_str().to_owned()),
        image_pull_policy: Some(settings.loader_pull_policy.as_str().to_owned()),
        env: Some(variables(request)),
        resources: Some(resources(settings)),
        security_context: Some(security_context(settings.loader_privileged)),
        // The end of the loader's log is then what `kubectl describe pod` shows of a failure.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: hide_token.then(|| {
            vec![VolumeMount {
                name: NO_TOKEN_VOLUME.to_owned(),
                mount_path: TOKEN_PATH.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            }]
        }),
        ..Container::default()
    }
}

/// The empty volume that lies where the ServiceAccount plugin would mount a token. The plugin runs
/// again after a webhook changed the pod, and leaves a container alone that mounts something there.
pub fn no_token_volume() -> Volume {
    Volume {
        name: NO_TOKEN_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity("64Ki".to_owned())),
        }),
        ..Volume::default()
    }
}

/// Through the downward API, the kubelet hands over an annotation as it is. In a plain `value` it
/// would expand `$(VAR)`, and a patch would have to carry the ruleset a second time.
fn variables(request: &InjectionRequest) -> Vec<EnvVar> {
    [
        (request.ingress.is_some(), env::RULESET, RULESET),
        (request.egress.is_some(), env::EGRESS_RULESET, EGRESS_RULESET),
        (request.interfaces, env::INTERFACES, INTERFACES),
    ]
    .into_iter()
    .filter(|(requested, ..)| *requested)
    .map(|(_, name, annotation)| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.annotations['{annotation}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    })
    .collect()
}

fn resources(settings: &Settings) -> ResourceRequirements {
    let list = |cpu: &MaybeQuantity, memory: &MaybeQuantity| {
        let list: BTreeMap<_, _> = [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .filter_map(|(name, value)| {
                let value = value.0.as_ref()?;
                Some((name.to_owned(), Quantity(value.as_str().to_owned())))
            })
            .collect();
        (!list.is_empty()).then_some(list)
    };
    ResourceRequirements {
        requests: list(&settings.loader_cpu_request, &settings.loader_memory_request),
        limits: list(&settings.loader_cpu_limit, &settings.loader_memory_limit),
        ..ResourceRequirements::default()
    }
}

/// Set in full, so that nothing is inherited from the pod's security context, which is meant for the
/// app. Root with two capabilities: `BPF` loads the program, `NET_ADMIN` attaches it in the pod's
/// network namespace. A non-root user would need them as ambient capabilities, which Kubernetes
/// doesn't offer.
///
/// A privileged container has all capabilities, whatever is listed, and runs without the seccomp
/// profile. With `allowPrivilegeEscalation: false` the API server would refuse it.
fn security_context(privileged: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(privileged),
        capabilities: (!privileged).then(|| Capabilities {
            add: Some(vec!["BPF".to_owned(), "NET_ADMIN".to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(privileged),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        run_as_user: Some(0),
        seccomp_profile: Some(SeccompProfile {
            type_: if privileged { "Unconfined" } else { "RuntimeDefault" }.to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}
