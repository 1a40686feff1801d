//! One run at a time changes a network namespace.
//!
//! A run looks at filters and at `gso_max_segs`, and then changes both. If `clean` did so in between,
//! `load` would rely on a limit that has been lifted a moment ago. Looking once more behind the last
//! step would only make the time shorter in which that can happen.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

/// How long a run waits for another one: many times what the largest ruleset takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The namespace of this thread. Its inode is the same for whoever is in it, in whatever container
/// or file system, and needs no place that can be written to.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The network namespace of the thread that took it. It is free again when this value goes, or the
/// process, however it ends.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    _namespace: File,
}

/// Why the network namespace can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// No /proc, for one.
    #[error("can't lock the network namespace {NAMESPACE}: {0}")]
    Refused(#[from] io::Error),
    /// Another run, or whoever else.
    #[error(
        "another process, most likely an sfunnel-loader, has had this network namespace locked for \
         {patience:?}; /proc/locks has its number, on the line with `:{inode} `"
    )]
    Taken {
        /// For how long at the least.
        patience: Duration,
        /// What the namespace is called there.
        inode: u64,
    },
}

impl Lock {
    /// Waits until no other run has it, for `patience` at the most.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub fn take(patience: Duration) -> Result<Self, LockError> {
        // flock(2) itself waits for ever, or not at all.
        const PAUSE: Duration = Duration::from_millis(10);
        let namespace = File::open(NAMESPACE)?;
        let end = Instant::now() + patience;
        loop {
            match namespace.try_lock() {
                Ok(()) => return Ok(Self { _namespace: namespace }),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let inode = namespace.metadata()?.ino();
                    return Err(LockError::Taken { patience, inode });
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }
}
