//! What the verifiers of Linux 5.10 and later ask of the code, and the few lines that see to it.
//!
//! The webhook gives the loader CAP_BPF and CAP_NET_ADMIN. Without CAP_PERFMON the verifier also
//! follows what a processor may do ahead of a branch, and is stricter about pointers. `make kernels`
//! loads the program on every kernel that the documents name, with these two capabilities; what it
//! found so far:
//!
//! | kernels | what is refused | what is done instead |
//! |---|---|---|
//! | before 5.11 | a length that was tested, then spilled to the stack: its bounds are forgotten there (until commit 5689d49b71ad) | [`call_with_len`] |
//! | before 6.8 | a length with the lower bound of `len != 0`: nothing is learnt of a JNE | [`call_with_len`] |
//! | before 6.17 | `Option<&T>` of which one side can't happen: the impossible branch is followed with a null pointer | a flag, and a reference that is always valid |
//! | before 6.1.55, and 6.2 to 6.5 | a comparison of packet pointers (until commit d75e30dddf73) | a second program that reads headers by helpers alone, `abi::program_name::BY_HELPERS` |
//! | 5.16 to 6.7 | a store of less than eight bytes to a place on the stack of which a part was stored before: "attempt to corrupt spilled pointer on stack" (until commit ab125ed3ec1c) | structures in registers or in the scratch map, [`write_in_words`]; a test of the loader looks through the object |
//! | all | a path that is followed again for each value that a number may have | `Skb::forget`, `Skb::again` |
//!
//! A structure stays in registers if all that handles it is inlined. A closure that calls helpers is
//! not, once two programs share it: then its captures are on the stack. So there are functions with
//! `inline(always)` in place of such closures.
//!
//! What connection tracking asks of the funnel header is at `abi::wire::WINDOW`.

use core::ffi::c_void;
use core::ptr;

use super::maps::CHUNK;

/// A helper whose fourth argument is the length of a buffer. Numbers as in include/uapi/linux/bpf.h.
pub mod helper {
    pub const SKB_STORE_BYTES: i32 = 9;
    pub const SKB_LOAD_BYTES: i32 = 26;
    pub const CSUM_DIFF: i32 = 28;
}

/// Calls helper number `HELPER` with these arguments.
///
/// The length is put between `STEP` and [`CHUNK`] where the verifier can't miss it: by instructions
/// right in front of the call, in the register that the helper gets. They change no length that is a
/// multiple of `STEP` and in these bounds.
///
/// # Safety
///
/// The arguments are the helper's: of these types, and valid for it.
#[inline(always)]
pub unsafe fn call_with_len<const HELPER: i32, const STEP: i32>(
    first: *mut c_void,
    second: u64,
    buffer: *mut c_void,
    len: u32,
    last: u64,
) -> i64 {
    let result;
    // SAFETY: by the contract; registers as helpers take and leave them.
    unsafe {
        core::arch::asm!(
            "r4 += -{step}",
            "r4 &= {mask}",
            "r4 += {step}",
            "call {helper}",
            step = const STEP,
            mask = const CHUNK as i32 - STEP,
            helper = const HELPER,
            inout("r1") first => _,
            inout("r2") second => _,
            inout("r3") buffer => _,
            inout("r4") u64::from(len) => _,
            inout("r5") last => _,
            lateout("r0") result,
        );
    }
    result
}

/// Writes `value`, which is in registers, to a map without a copy on the stack.
///
/// The compiler would put its fields together there, which not every verifier allows.
///
/// # Safety
///
/// `to` is valid for a `T`, and has its alignment. A `T` has no padding.
#[inline(always)]
pub unsafe fn write_in_words<T>(to: *mut T, value: &T) {
    let from = ptr::from_ref(value);
    let len = size_of::<T>();
    // SAFETY: all within the T.
    unsafe {
        for word in 0..len / 4 {
            to.cast::<u32>()
                .add(word)
                .write_volatile(from.cast::<u32>().add(word).read_unaligned());
        }
        for byte in len / 4 * 4..len {
            to.cast::<u8>().add(byte).write_volatile(from.cast::<u8>().add(byte).read());
        }
    }
}

/// `value` in one register that is both tested and used, so that the verifier sees the test bear on
/// the use. The compiler would test one copy and use another, or drop a test that it can prove.
#[inline(always)]
pub fn visible(value: u32) -> u64 {
    let mut value = u64::from(value);
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack)) };
    value
}
