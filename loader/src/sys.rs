//! The four bpf(2) commands that aya keeps to itself.

use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};

/// How much the verifier writes into its log: `log_level` of BPF_PROG_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Each instruction that it looks at.
    All = 1,
    /// Why it refuses, if it does; and how much it had to do (Linux 5.2, commit 06ee7115b0d1).
    Summary = 4,
}

/// Loads a classifier. `log`, of 128 bytes or more, takes the verifier's.
///
/// # Errors
///
/// The kernel's: `EPERM` without CAP_BPF and CAP_NET_ADMIN, `EACCES` or `EINVAL` if the verifier
/// refuses.
pub fn load_classifier(
    name: &CStr,
    instructions: &[bpf_insn],
    license: &CStr,
    level: LogLevel,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: BPF_PROG_LOAD reads this variant, and all of the union is zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    load.insn_cnt = len(instructions);
    load.insns = instructions.as_ptr() as u64;
    load.license = license.as_ptr() as u64;
    load.log_level = level as u32;
    load.log_size = len(log);
    load.log_buf = log.as_mut_ptr() as u64;
    // The last byte stays NUL.
    let room = load.prog_name.len() - 1;
    for (to, &from) in load.prog_name[..room].iter_mut().zip(name.to_bytes()) {
        *to = from as c_char;
    }
    let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets `program` hold `map`, which it does not use itself (Linux 5.10).
///
/// # Errors
///
/// The kernel's.
pub fn bind_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.prog_bind_map.prog_fd = program.as_raw_fd() as u32;
    attr.prog_bind_map.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_PROG_BIND_MAP, &mut attr).map(drop)
}

/// Writes `values` to the entries `first`, `first` + 1... of an array map (Linux 5.6).
///
/// `T` is the map's value; in a batch, values lie one behind the other.
///
/// # Errors
///
/// The kernel's.
pub fn fill_array<T: aya::Pod>(map: BorrowedFd<'_>, first: u32, values: &[T]) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    if values.is_empty() {
        return Ok(());
    }
    let mut attr = zeroed();
    attr.batch.map_fd = map.as_raw_fd() as u32;
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.as_ptr() as u64;
    attr.batch.count = len(values);
    bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Makes `map` read-only for user space, for good (Linux 5.2).
///
/// # Errors
///
/// The kernel's.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Lengths are those of rulesets and programs.
fn len<T>(slice: &[T]) -> u32 {
    u32::try_from(slice.len()).expect("shorter than 4 GiB")
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is a whole bpf_attr; what it points to outlives the call in every caller.
    let rc = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as i32) }
}
