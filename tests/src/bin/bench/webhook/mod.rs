//! The webhook over TLS, side by side with another admission server.
//!
//! ```text
//! certificate  what both servers show
//! server       both of them, each a process
//! review       questions of any size
//! generator    the load: questions as fast as they are answered, or at a steady rate
//! load         reviews per second, how long one takes at half of that, and how long the largest one
//! start        from exec to ready
//! memory       after a million reviews, and with thousands of connections
//! ```
//!
//! While it is timed, a server has a core for itself and the generator another one, which also takes
//! in the server's log: a container's log is a pipe too. Everything is in a network namespace, so ports
//! are free and nobody else reaches the servers.

mod certificate;
mod generator;
mod load;
pub mod memory;
mod review;
mod server;
mod start;

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::Result;
use rustix::process::nice;
use tests::netns::{Checked as _, Netns};

use self::certificate::Certificate;
use crate::path::cpu::{Cpu, stay_on};
use crate::table::section;

/// The API server's limit for what its own clients send.
const LARGEST: usize = 3 << 20;

/// Bytes of an ordinary pod's review.
const ORDINARY: usize = 10_000;

/// Compares speed with that of another admission server.
pub fn compare(rounds: usize) -> Result<()> {
    section("Webhook, over TLS, each server on one core, compared to Kubernetes' agnhost");
    let programs = programs()?;
    Netns::new("bench")?.enter(|| {
        let certificate = Certificate::new()?;
        start::compare(rounds, &certificate, &programs)?;
        load::compare(rounds, &certificate, &programs)
    })
}

/// The folder with the programs that Debian doesn't have. They are built if they are not there yet.
fn programs() -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/programs.sh");
    let folder = Command::new(script).checked()?;
    Ok(folder.trim_end().into())
}

/// Runs `task` on a thread that stays on `cpu`, as does every process that it starts. They go before
/// whatever else the machine does there: a slice of 3 ms for somebody else is a 99th percentile.
fn on<T: Send>(cpu: Cpu, task: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            stay_on(cpu)?;
            nice(-20)?;
            task()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
