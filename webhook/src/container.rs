//! The init container `sfunnel-loader`: how it is added, and how it is known again.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector,
    ResourceRequirements, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::annotations::Wishes;
use crate::names::{
    EGRESS_RULESET, EGRESS_RULESET_ENV, INTERFACES, INTERFACES_ENV, LOADER, LOADER_ENV,
    NO_TOKEN_VOLUME, RULESET, RULESET_ENV, TOKEN_PATH,
};
use crate::quantity::MaybeQuantity;
use crate::settings::Settings;
use crate::text::one_line;

/// The loader container for a pod. `hide_token` mounts the empty volume over the service account's
/// token.
pub fn loader(wishes: &Wishes, hide_token: bool, settings: &Settings) -> Container {
    Container {
        name: LOADER.to_owned(),
        image: Some(settings.loader_image.as_str().to_owned()),
        image_pull_policy: Some(settings.loader_pull_policy.as_str().to_owned()),
        env: Some(env(wishes)),
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
fn env(wishes: &Wishes) -> Vec<EnvVar> {
    [
        (wishes.ingress.is_some(), RULESET_ENV, RULESET),
        (wishes.egress.is_some(), EGRESS_RULESET_ENV, EGRESS_RULESET),
        (wishes.interfaces, INTERFACES_ENV, INTERFACES),
    ]
    .into_iter()
    .filter(|(wished, ..)| *wished)
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

/// Compares a container that has the loader's name with the one that we would add: image, command,
/// environment, security context and the mount over the token.
///
/// `imagePullPolicy`, resources and what we don't set may differ. Others have a say in these: the
/// AlwaysPullImages plugin, LimitRanger, the API server's defaults, other webhooks. Returns the first
/// difference, in words.
pub fn difference(wanted: &Container, found: &Container) -> Option<String> {
    image(wanted, found)
        .or_else(|| command(found))
        .or_else(|| environment(wanted, found))
        .or_else(|| rights(wanted, found))
        .or_else(|| token(wanted, found))
}

fn image(wanted: &Container, found: &Container) -> Option<String> {
    if wanted.image == found.image {
        return None;
    }
    let show = |container: &Container| one_line(container.image.as_deref().unwrap_or(""), 128);
    Some(format!("its image is {:?}, not {:?}", show(found), show(wanted)))
}

/// Whatever would make it run something else, or keep running.
fn command(found: &Container) -> Option<String> {
    let set = [
        ("command", found.command.as_ref().is_some_and(|list| !list.is_empty())),
        ("args", found.args.as_ref().is_some_and(|list| !list.is_empty())),
        ("restartPolicy", found.restart_policy.is_some()),
        ("workingDir", found.working_dir.as_ref().is_some_and(|dir| !dir.is_empty())),
        ("lifecycle", found.lifecycle.is_some()),
    ];
    let (field, _) = set.into_iter().find(|(_, set)| *set)?;
    Some(format!("its {field} is set"))
}

/// The loader's variables are there once and as we set them, and none that we didn't set: `CLEAN`
/// would have it remove what it should attach. Variables of others are theirs.
fn environment(wanted: &Container, found: &Container) -> Option<String> {
    for name in LOADER_ENV {
        let sources = |container: &Container| -> Vec<Option<String>> {
            let variables = container.env.iter().flatten();
            variables.filter(|variable| variable.name == name).map(field_path).collect()
        };
        if sources(wanted) != sources(found) {
            return Some(format!("its env {name} differs"));
        }
    }
    if found.env_from.as_ref().is_some_and(|list| !list.is_empty()) {
        return Some("its envFrom is set".to_owned());
    }
    None
}

/// The field that a variable is taken from, when nothing else gives its value.
fn field_path(variable: &EnvVar) -> Option<String> {
    let source = variable.value_from.as_ref()?;
    let field = source.field_ref.as_ref()?;
    let v1 = field.api_version.as_deref().is_none_or(|version| version == "v1");
    let plain = variable.value.as_ref().is_none_or(String::is_empty);
    (v1 && plain).then(|| field.field_path.clone())
}

fn rights(wanted: &Container, found: &Container) -> Option<String> {
    let none = SecurityContext::default();
    let wanted = wanted.security_context.as_ref().unwrap_or(&none);
    let found = found.security_context.as_ref().unwrap_or(&none);
    let same = [
        ("privileged", wanted.privileged == found.privileged),
        ("capabilities", same_capabilities(wanted, found)),
        (
            "allowPrivilegeEscalation",
            wanted.allow_privilege_escalation == found.allow_privilege_escalation,
        ),
        (
            "readOnlyRootFilesystem",
            wanted.read_only_root_filesystem == found.read_only_root_filesystem,
        ),
        ("runAsUser", wanted.run_as_user == found.run_as_user),
        ("runAsGroup", wanted.run_as_group == found.run_as_group),
        ("runAsNonRoot", wanted.run_as_non_root == found.run_as_non_root),
        ("seccompProfile", wanted.seccomp_profile == found.seccomp_profile),
    ];
    let (field, _) = same.into_iter().find(|(_, same)| !same)?;
    Some(format!("its securityContext.{field} differs"))
}

/// Whether the same capabilities are left, in whatever order they are listed. Webhooks that harden
/// pods drop some by name beside `ALL`, which changes nothing. Container runtimes add before they
/// drop, so one that is added must not be among them. For a privileged container they read neither
/// list.
fn same_capabilities(wanted: &SecurityContext, found: &SecurityContext) -> bool {
    if wanted.privileged == Some(true) && found.privileged == Some(true) {
        return true;
    }
    let added = |context: &SecurityContext| -> BTreeSet<String> {
        context.capabilities.iter().flat_map(|all| all.add.iter().flatten().cloned()).collect()
    };
    let dropped: BTreeSet<_> =
        found.capabilities.iter().flat_map(|all| all.drop.iter().flatten().cloned()).collect();
    let added_here = added(found);
    added(wanted) == added_here && dropped.contains("ALL") && dropped.is_disjoint(&added_here)
}

/// Nothing but the empty volume lies where the token would be. It may lie there although nothing has
/// to be hidden: another webhook may have set `automountServiceAccountToken: false` after we added it.
fn token(wanted: &Container, found: &Container) -> Option<String> {
    let at_token = |container: &Container| -> Vec<VolumeMount> {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.filter(|mount| mount.mount_path == TOKEN_PATH).cloned().collect()
    };
    let fine = match at_token(found).as_slice() {
        [] => at_token(wanted).is_empty(),
        [mount] => mount.name == NO_TOKEN_VOLUME && mount.read_only == Some(true),
        _ => false,
    };
    (!fine).then(|| format!("its mount at {TOKEN_PATH} differs"))
}

/// Whether a container mounts the empty volume, or what has its name.
pub fn mounts_no_token_volume(container: &Container) -> bool {
    container.volume_mounts.iter().flatten().any(|mount| mount.name == NO_TOKEN_VOLUME)
}
