//! The cgroup of a cluster's pods: one folder under the root of each hierarchy.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";

/// The controllers that the kubelet insists on where the machine has them (`cgroupManagerImpl.Validate`
/// in its source).
const KUBELETS: [&str; 5] = ["cpu", "cpuset", "memory", "hugetlb", "pids"];

/// Makes the cgroup in every hierarchy. The kubelet puts its pods below it.
///
/// # Errors
///
/// When the machine lets nobody make cgroups.
pub fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(name);
        fs::create_dir_all(&folder).with_context(|| {
            format!("making the cgroup {}; are cgroups read-only here?", folder.display())
        })?;
        if hierarchy.join("cpuset.cpus").exists() {
            // In version 1 a new cpuset is empty, and nothing can run in it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(folder.join(file), fs::read(hierarchy.join(file))?)?;
            }
        }
        if let Ok(all) = fs::read_to_string(hierarchy.join("cgroup.controllers")) {
            // In version 2 a controller is handed down by name, from the root on, where systemd has
            // enabled only what it uses itself.
            for controller in all.split_whitespace().filter(|name| KUBELETS.contains(name)) {
                for folder in [&hierarchy, &folder] {
                    let file = folder.join("cgroup.subtree_control");
                    fs::write(&file, format!("+{controller}"))
                        .with_context(|| format!("writing +{controller} to {}", file.display()))?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the cgroup and everything below it. Its processes must have ended.
///
/// # Errors
///
/// What is still busy after five seconds.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(name);
        // A process that was killed stays in its cgroup until its parent has noticed.
        for _ in 0..50 {
            remove_tree(&folder);
            if !folder.exists() {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        if folder.exists() {
            bail!("the cgroup {} is left behind: processes are in it", folder.display());
        }
    }
    Ok(())
}

/// Files of a cgroup go with their folder, and a folder only when it has no folders in it.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // What is busy now is tried again.
    let _ = fs::remove_dir(folder);
}

/// The root of the one hierarchy of version 2, or of each of version 1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut hierarchies = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("reading {ROOT}"))? {
        let entry = entry?;
        // Links lead to hierarchies that several controllers share.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            hierarchies.push(entry.path());
        }
    }
    if hierarchies.is_empty() {
        bail!("{ROOT} has no cgroup hierarchy; the kubelet needs one");
    }
    Ok(hierarchies)
}
