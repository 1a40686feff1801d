//! Entering a network namespace.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// A namespace that could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is none of that name or path.
    #[error("there is no network namespace {}: {error}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It is there, but closed to us.
    #[error("can't enter the network namespace {}: {error}{}", path.display(), hint(.error))]
    Enter {
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; CAP_SYS_ADMIN is needed",
        Some(libc::EINVAL) => "; it is something else",
        _ => "",
    }
}

/// Moves this thread to the network namespace `name`: one of `ip netns`, or a path such as
/// `/proc/1234/ns/net`.
///
/// # Errors
///
/// See [`NetnsError`].
pub fn enter(name: &str) -> Result<(), NetnsError> {
    let path =
        if name.contains('/') { name.into() } else { Path::new("/var/run/netns").join(name) };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Err(NetnsError::Missing { path, error });
        }
        Err(error) => return Err(NetnsError::Enter { path, error }),
    };
    setns(&file, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetnsError::Enter { path, error: errno.into() })
}
