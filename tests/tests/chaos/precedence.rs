//! Who goes first on the processors.

use std::io;

/// Has `work` done, and what it starts, before what else the machine has to do, bad clients among it.
///
/// This is for the webhook and for those who measure it. In a cluster bad clients run on other machines:
/// what they take away from the webhook here by running beside it tells nothing. Nor does what others do at
/// the same time. Threads and programs inherit it (`sched(7)`), and a kernel that gives it to nobody, or
/// not here, is one more source of noise.
pub fn before_all_else<T>(work: impl FnOnce() -> T) -> T {
    if let Err(error) = schedule(libc::SCHED_RR, 1) {
        println!("no precedence on the processors: {error}");
        return work();
    }
    let result = work();
    schedule(libc::SCHED_OTHER, 0).expect("what everybody has is free to take");
    result
}

/// Sets how this thread is scheduled.
fn schedule(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads the structure, which outlives the call. Process 0 is this thread.
    match unsafe { libc::sched_setscheduler(0, policy, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
