//! An init container that is called `sfunnel-loader` already: whether it is the one that would be added.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvVar, SecurityContext, VolumeMount};
use ruleset::contract::{NO_TOKEN_VOLUME, env};

use super::container::TOKEN_PATH;
use super::pod::Spec;
use super::reason::DenyReason;
use super::text::one_line;

/// The init container with the loader's name.
#[derive(Clone, Debug)]
pub struct Existing(Container);

/// Bytes of a loader's JSON, at the most: ours has some hundred.
const MAX_TEXT: usize = 64 << 10;

impl Existing {
    /// Finds it among the init containers of a pod.
    ///
    /// # Errors
    ///
    /// When there are several, or it is none that the webhook could have added.
    pub fn find(spec: &Spec) -> Result<Option<Self>, DenyReason> {
        let differs =
            |difference: &str| DenyReason::LoaderDiffers { difference: difference.to_owned() };
        let mut loaders = spec.loaders();
        let Some(text) = loaders.next() else { return Ok(None) };
        if loaders.next().is_some() {
            return Err(differs("it is there more than once"));
        }
        if text.get().len() > MAX_TEXT {
            return Err(differs("it is larger than 64 KiB"));
        }
        match serde_json::from_str(text.get()) {
            Ok(container) => Ok(Some(Self(container))),
            Err(error) => Err(differs(&one_line(&error.to_string(), 128))),
        }
    }

    /// Compares it with the container that would be added: image, command, environment, security context
    /// and the mount over the token.
    ///
    /// `imagePullPolicy`, resources and what we don't set may differ, because others have a say in these:
    /// the AlwaysPullImages plugin, LimitRanger, the API server's defaults, other webhooks. Returns the
    /// first difference, in words.
    pub fn difference(&self, wanted: &Container) -> Option<String> {
        let found = &self.0;
        image(wanted, found)
            .or_else(|| command(found))
            .or_else(|| environment(wanted, found))
            .or_else(|| rights(wanted, found))
            .or_else(|| token(wanted, found))
    }

    /// Whether it mounts the empty volume, or another one of that name.
    pub fn mounts_no_token_volume(&self) -> bool {
        self.0.volume_mounts.iter().flatten().any(|mount| mount.name == NO_TOKEN_VOLUME)
    }
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
    for name in env::THAT_MATTER {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::annotations::InjectionRequest;
    use crate::admission::container::loader;
    use crate::admission::settings::tests::settings;

    #[test]
    fn every_variable_that_matters_makes_it_another_one() {
        let request =
            InjectionRequest { ingress: None, egress: None, interfaces: false, warnings: vec![] };
        let wanted = loader(&request, false, &settings(&[]).unwrap());
        let difference = |name: &str| {
            let mut found = wanted.clone();
            let variable =
                EnvVar { name: name.to_owned(), value: Some("1".to_owned()), value_from: None };
            found.env.get_or_insert_default().push(variable);
            Existing(found).difference(&wanted)
        };
        for name in env::THAT_MATTER {
            assert_eq!(difference(name), Some(format!("its env {name} differs")));
        }
        assert_eq!(difference(env::DEBUG), None);
    }
}
