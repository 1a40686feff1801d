//! What the running kernel is, for the reader of an error, and what it asks of a process.

use std::io;

use nix::sys::resource::{Resource, getrlimit};
use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

/// The oldest release that this program is made for.
const OLDEST: (u32, u32) = (5, 10);

/// What the kernel calls itself, such as `6.1.0-56-cloud-amd64`.
pub fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Major and minor number of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Those of the capabilities that are needed and that this process has not.
pub fn missing_capabilities() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    let needed = [("CAP_BPF", CapabilitySet::BPF), ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN)];
    let missing =
        needed.into_iter().filter(|(_, capability)| !sets.effective.contains(*capability));
    missing.map(|(name, _)| name).collect()
}

/// RLIMIT_MEMLOCK in bytes, if BPF maps and programs are charged to it: before Linux 5.11
/// ("bpf: Eliminate rlimit-based memory accounting").
pub fn locked_memory_limit() -> Option<u64> {
    let counted = version(&release()).is_some_and(|version| version < (5, 11));
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (counted && limit != libc::RLIM_INFINITY).then_some(limit)
}

/// What to do about an answer of the kernel's, to be put behind it; or nothing.
pub fn advice(error: &io::Error) -> String {
    advise(error, &release(), &missing_capabilities())
}

fn advise(error: &io::Error, release: &str, missing: &[&str]) -> String {
    let (major, minor) = OLDEST;
    match (version(release), error.raw_os_error()) {
        // CAP_BPF came with 5.8, commit a17b53c4a4b5.
        (Some(version), _) if version < (5, 8) => {
            format!("; Linux {release} has no CAP_BPF: {major}.{minor} or later is needed")
        }
        (Some(version), _) if version < OLDEST => {
            format!("; Linux {release} is too old: {major}.{minor} or later is needed")
        }
        // With kernel.unprivileged_bpf_disabled=0 the program is longer than one may be without
        // CAP_BPF, and the verifier is not even asked: E2BIG.
        (_, Some(libc::EPERM | libc::E2BIG)) if !missing.is_empty() => {
            format!("; CAP_BPF and CAP_NET_ADMIN are needed; missing: {}", missing.join(", "))
        }
        (_, Some(libc::EPERM)) => "; no capability is missing, so a user namespace, a seccomp \
            profile or a security module is in the way"
            .to_owned(),
        // The kernel's own ENOTSUPP, which is not the C library's ENOTSUP: there is no interpreter to
        // fall back to.
        (_, Some(524)) => {
            "; the BPF JIT is off, or out of memory: see net.core.bpf_jit_enable and \
            net.core.bpf_jit_limit on the node"
                .to_owned()
        }
        (_, Some(libc::ENOSYS)) => {
            format!("; Linux {release} is built without CONFIG_BPF_SYSCALL")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("7.3.4+deb13-rt-amd64"), Some((7, 3)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!(version("6.20-rc1"), Some((6, 20)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn the_advice_is_for_this_kernel_and_this_process() {
        let advice = |errno, release, missing: &[&str]| {
            advise(&io::Error::from_raw_os_error(errno), release, missing)
        };
        assert_eq!(
            advice(libc::EPERM, "4.19.0-27-amd64", &["CAP_BPF"]),
            "; Linux 4.19.0-27-amd64 has no CAP_BPF: 5.10 or later is needed"
        );
        assert_eq!(
            advice(libc::EINVAL, "5.9.16", &[]),
            "; Linux 5.9.16 is too old: 5.10 or later is needed"
        );
        assert_eq!(
            advice(libc::E2BIG, "6.1.0", &["CAP_BPF"]),
            "; CAP_BPF and CAP_NET_ADMIN are needed; missing: CAP_BPF"
        );
        assert_eq!(
            advice(libc::EPERM, "6.1.0", &["CAP_BPF", "CAP_NET_ADMIN"]),
            "; CAP_BPF and CAP_NET_ADMIN are needed; missing: CAP_BPF, CAP_NET_ADMIN"
        );
        assert!(advice(libc::EPERM, "6.1.0", &[]).contains("a user namespace"));
        assert!(advice(524, "6.1.0", &[]).contains("the BPF JIT is off"));
        assert!(advice(libc::ENOSYS, "6.1.0", &[]).contains("CONFIG_BPF_SYSCALL"));
        assert_eq!(advice(libc::EACCES, "6.1.0", &[]), "");
    }
}
