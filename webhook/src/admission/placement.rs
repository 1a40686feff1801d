//! Where a pod is to run, and whether the loader can work there.

use super::pod::Spec;
use super::reason::DenyReason;
use super::warning::Warning;

/// Denies pods for which the loader would do harm or could never work, and warns of those for which
/// it probably can't. A failed loader keeps its pod from starting, so nothing is silently lost.
///
/// # Errors
///
/// What stands in the way.
pub fn check(spec: &Spec, denied_classes: &[String]) -> Result<Vec<Warning>, DenyReason> {
    if spec.host_network == Some(true) {
        return Err(DenyReason::HostNetwork);
    }
    if let Some(field) = windows(spec) {
        return Err(DenyReason::Windows { field });
    }
    if spec.host_users == Some(false) {
        return Err(DenyReason::UserNamespace);
    }
    let mut warnings = Vec::new();
    if let Some(class) = &spec.runtime_class_name {
        let class = class.clone();
        if denied_classes.contains(&class) {
            return Err(DenyReason::RuntimeClass { class });
        }
        if sounds_like_sandbox(&class) {
            warnings.push(Warning::SandboxRuntime(class));
        }
    }
    if virtual_node(spec) {
        warnings.push(Warning::VirtualNode);
    }
    Ok(warnings)
}

/// The field by which a pod says that it is for Windows.
fn windows(spec: &Spec) -> Option<&'static str> {
    let selects = |label: &str| spec.node_selector.get(label).is_some_and(|os| os == "windows");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        Some("spec.os.name")
    } else if selects("kubernetes.io/os") {
        Some("spec.nodeSelector kubernetes.io/os")
    } else if selects("beta.kubernetes.io/os") {
        Some("spec.nodeSelector beta.kubernetes.io/os")
    } else {
        None
    }
}

/// Administrators choose the names of runtime classes; these are the ones that the documentation of
/// gVisor and Kata Containers uses, and their variants such as `kata-qemu`.
fn sounds_like_sandbox(class: &str) -> bool {
    let class = class.to_ascii_lowercase();
    ["gvisor", "runsc", "kata"].iter().any(|name| class.split(['-', '.']).any(|word| word == *name))
}

/// The taint of nodes of the Virtual Kubelet project.
const VIRTUAL_KUBELET: &str = "virtual-kubelet.io/provider";

/// Whether a pod seeks or tolerates nodes of the Virtual Kubelet project.
fn virtual_node(spec: &Spec) -> bool {
    let selected = spec.node_selector.get("type").is_some_and(|node| node == "virtual-kubelet");
    let mut tolerations = spec.tolerations.iter();
    let tolerated =
        tolerations.any(|toleration| toleration.key.as_deref() == Some(VIRTUAL_KUBELET));
    selected || tolerated
}

#[cfg(test)]
mod tests {
    use super::sounds_like_sandbox;

    #[test]
    fn variants_of_known_names_are_known() {
        for class in ["gvisor", "runsc", "kata", "kata-qemu", "Kata-CLH", "my-gvisor"] {
            assert!(sounds_like_sandbox(class), "{class}");
        }
        for class in ["runc", "nvidia", "katana", "crun"] {
            assert!(!sounds_like_sandbox(class), "{class}");
        }
    }
}
