//! Threads that stay on a CPU, so that the scheduler does not decide what is measured.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Which of the CPUs that this process may use.
#[derive(Clone, Copy)]
pub enum Cpu {
    First,
    /// The first again, where there is only one.
    Second,
}

/// Keeps the current thread on `cpu`.
pub fn stay_on(cpu: Cpu) -> Result<()> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
    let first = cpus.next().context("this process may use no CPU")?;
    let mut chosen = CpuSet::new();
    chosen.set(match cpu {
        Cpu::First => first,
        Cpu::Second => cpus.next().unwrap_or(first),
    })?;
    Ok(sched_setaffinity(this_thread, &chosen)?)
}
