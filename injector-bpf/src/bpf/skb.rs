//! The kernel's packet buffer, by offsets from the start of the frame.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ops::Add;
use core::ptr;

use abi::Reason;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
    bpf_adj_room_mode::BPF_ADJ_ROOM_NET,
};
use aya_ebpf::helpers::generated as helpers;
use aya_ebpf::programs::TcContext;

use super::checksum::Sum;
use super::maps::{CHUNK, SCRATCH, Scratch};

/// Bytes that are summed up of one packet, at the most: more than any network card sends in one
/// frame. Each chunk of them costs time whenever the verifier looks at the program.
pub const MAX_SUM: u32 = 10 << 10;

/// Bytes from the start of the frame.
#[derive(Clone, Copy)]
pub struct Offset(pub u32);

impl Add<u32> for Offset {
    type Output = Self;

    #[inline(always)]
    fn add(self, bytes: u32) -> Self {
        Self(self.0 + bytes)
    }
}

/// A helper refused.
pub struct Refused;

impl From<Refused> for Reason {
    /// Before the first change. After it, say [`Reason::Dropped`].
    #[inline(always)]
    fn from(_: Refused) -> Self {
        Self::HelperError
    }
}

/// What a helper answered.
pub type Done<T = ()> = Result<T, Refused>;

/// A value that any bytes make: what headers are read into and written from.
///
/// # Safety
///
/// Every bit pattern is valid, and there is no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u16 {}
// SAFETY: integers.
unsafe impl Plain for u32 {}

/// The packet in hand.
pub struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }

    #[inline(always)]
    fn ctx(&self) -> &__sk_buff {
        // SAFETY: the kernel hands the program a valid context.
        unsafe { &*self.0 }
    }

    /// Bytes in the frame.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.ctx().len
    }

    /// The EtherType of the packet as the kernel sees it: below the tag that it holds apart from
    /// the frame, above those in the frame. In network byte order.
    #[inline(always)]
    pub fn protocol(&self) -> u16 {
        self.ctx().protocol as u16
    }

    /// The kernel holds a VLAN tag apart from the frame.
    #[inline(always)]
    pub fn has_vlan_tag_apart(&self) -> bool {
        self.ctx().vlan_present != 0
    }

    /// The packet stands for several that are segmented later.
    #[inline(always)]
    pub fn is_segmented(&self) -> bool {
        self.ctx().gso_size != 0
    }

    /// `value`, of which the verifier knows nothing any more.
    ///
    /// It follows each value that a number may have to the program's end. Where paths join on which
    /// a number is a different constant each, forgetting the constant joins them for it too.
    #[inline(always)]
    pub fn forget(&self, value: u32) -> u32 {
        let mut value = u64::from(value);
        let unknown = u64::from(self.len());
        // SAFETY: changes one register, and changes it back.
        unsafe {
            core::arch::asm!(
                "{0} ^= {1}",
                "{0} ^= {1}",
                inout(reg) value,
                in(reg) unknown,
                options(pure, nomem, nostack)
            );
        }
        value as u32
    }

    #[inline(always)]
    pub fn load<T: Plain>(&self, at: Offset) -> Done<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value` or fails; T takes any bytes.
        unsafe {
            let rc = helpers::bpf_skb_load_bytes(
                self.0.cast(),
                at.0,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            );
            done(rc)?;
            Ok(value.assume_init())
        }
    }

    /// Writes `value`, and keeps the sum that the network card may have delivered right.
    #[inline(always)]
    pub fn store<T: Plain>(&self, at: Offset, value: &T) -> Done {
        let from = ptr::from_ref(value).cast();
        // SAFETY: a T has its size in bytes.
        unsafe { self.store_bytes(at, from, size_of::<T>() as u32, BPF_F_RECOMPUTE_CSUM) }
    }

    /// # Safety
    ///
    /// `from` points to `len` bytes.
    #[inline(always)]
    unsafe fn store_bytes(&self, at: Offset, from: *const c_void, len: u32, flags: u32) -> Done {
        // SAFETY: by the contract.
        done(unsafe { helpers::bpf_skb_store_bytes(self.0, at.0, from, len, flags.into()) })
    }

    /// Copies `len` bytes to the scratch. The verifier wants to see that they fit.
    #[inline(always)]
    pub fn save(&self, at: Offset, len: u32) -> Done<Saved> {
        let scratch = SCRATCH.get_ptr_mut(0).ok_or(Refused)?;
        let len = bounded(len)?;
        // SAFETY: `bounded` keeps `len` within the scratch.
        done(unsafe {
            helpers::bpf_skb_load_bytes(self.0.cast(), at.0, scratch.cast(), len as u32)
        })?;
        Ok(Saved { scratch, len: len as u32 })
    }

    /// Writes back what was saved last.
    #[inline(always)]
    pub fn restore(&self, at: Offset, saved: &Saved) -> Done {
        let len = bounded(saved.len)? as u32;
        // SAFETY: `bounded` keeps `len` within the scratch.
        unsafe {
            self.store_bytes(at, saved.scratch.cast_const().cast(), len, BPF_F_RECOMPUTE_CSUM)
        }
    }

    /// Sum of `len` bytes from `at`: at least four, at most [`MAX_SUM`].
    #[inline(always)]
    pub fn sum(&self, at: Offset, len: u32) -> Done<Sum> {
        let scratch = SCRATCH.get_ptr_mut(0).ok_or(Refused)?;
        let end = at + len;
        let (mut at, mut left, mut sum) = (at, visible(len), 0);
        if left > u64::from(MAX_SUM) {
            return Err(Refused);
        }
        macro_rules! four {
            ($step:block) => {{ $step $step $step $step }};
        }
        macro_rules! five {
            ($step:block) => {{ $step $step $step $step $step }};
        }
        const { assert!(MAX_SUM as usize == 4 * 5 * CHUNK) };
        // Written out: without CAP_PERFMON the verifier also follows what a processor may do ahead
        // of a branch, where neither a counter nor what is left ends a loop.
        'chunks: {
            five!({
                four!({
                    if left < CHUNK as u64 {
                        break 'chunks;
                    }
                    // SAFETY: the scratch has the length of a chunk.
                    sum = unsafe { sum_scratch(self, at, CHUNK as u64, scratch, sum)? };
                    at = at + CHUNK as u32;
                    left -= CHUNK as u64;
                })
            });
        }
        // All that is left if the packet had the longest length.
        let left = visible(left as u32);
        if left >= CHUNK as u64 {
            return Err(Refused);
        }
        let words = left & !3;
        if words > 0 {
            // SAFETY: less than a chunk.
            sum = unsafe { sum_scratch(self, at, words, scratch, sum)? };
        }
        // Up to three bytes are left. They end the packet's last four, of which those before them
        // are shifted out; what is shifted in takes the place of the bytes that a word lacks (RFC
        // 1071, 4.1). No branch, which would be a path for the verifier.
        let last = u32::from_le(self.load::<u32>(Offset(end.0 - 4))?);
        let rest = u64::from(last) >> (8 * (4 - (left & 3)));
        let sum = Sum::from_words(sum).plus32((rest as u32).to_le());
        Ok(sum)
    }

    /// Makes the frame longer or shorter right behind the 20 bytes of an IPv4 header's fixed part.
    #[inline(always)]
    pub fn adjust_room(&self, bytes: i32) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_adjust_room(self.0, bytes, BPF_ADJ_ROOM_NET, 0) })
    }

    /// Makes the frame `len` bytes long, at its end.
    #[inline(always)]
    pub fn change_len(&self, len: u32) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_change_tail(self.0, len, 0) })
    }

    /// Removes the outermost VLAN tag. The next one in the frame, if any, is then held apart.
    #[inline(always)]
    pub fn vlan_pop(&self) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_vlan_pop(self.0) })
    }

    /// Adds a VLAN tag outside all others.
    #[inline(always)]
    pub fn vlan_push(&self, tpid: u16, tci: u16) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_vlan_push(self.0, tpid, tci) })
    }

    /// The packet belongs to another flow now.
    #[inline(always)]
    pub fn set_hash_invalid(&self) {
        // SAFETY: the context is valid.
        unsafe { helpers::bpf_set_hash_invalid(self.0) };
    }

    /// Replaces four bytes of the pseudo-header in the TCP or UDP checksum at `at`, whichever form
    /// that checksum has. A UDP checksum of 0 stays (it says that there is none).
    #[inline(always)]
    pub fn replace_pseudo_header(&self, at: Offset, old: u32, new: u32, udp: bool) -> Done {
        let mangled = if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let flags = 4 | u64::from(BPF_F_PSEUDO_HDR) | mangled;
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_l4_csum_replace(self.0, at.0, old.into(), new.into(), flags) })
    }

    /// Whether the checksum at `at`, which reads `check`, is yet to be finished by the kernel or
    /// the network card (`CHECKSUM_PARTIAL`). It then holds the sum of the pseudo-header alone.
    ///
    /// No field of the context tells. But a change of the payload, as opposed to the pseudo-header,
    /// is added by `bpf_l4_csum_replace` to a finished checksum only (`inet_proto_csum_replace4`
    /// in net/core/utils.c). So: change it, look, change it back.
    #[inline(always)]
    pub fn is_checksum_pending(&self, at: Offset, check: u16) -> Result<bool, Reason> {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_l4_csum_replace(self.0, at.0, 0, 1, 2) })?;
        let pending = || -> Done<bool> {
            if self.load::<u16>(at)? == check {
                return Ok(true);
            }
            // Without BPF_F_RECOMPUTE_CSUM: the helper above did not touch the card's sum either.
            // SAFETY: a u16 has two bytes.
            unsafe { self.store_bytes(at, ptr::from_ref(&check).cast(), 2, 0)? };
            Ok(false)
        };
        pending().map_err(|Refused| Reason::Dropped)
    }
}

/// Bytes that were copied to the scratch; the next use of it overwrites them.
pub struct Saved {
    scratch: *mut Scratch,
    len: u32,
}

/// Adds `len` bytes of the packet to `sum`, through the scratch.
///
/// # Safety
///
/// `len` is a multiple of four and at most a chunk, which `scratch` points to.
#[inline(always)]
unsafe fn sum_scratch(
    skb: &Skb,
    at: Offset,
    len: u64,
    scratch: *mut Scratch,
    sum: u32,
) -> Done<u32> {
    let len = len as u32;
    // SAFETY: by the contract.
    let sum = unsafe {
        done(helpers::bpf_skb_load_bytes(skb.0.cast(), at.0, scratch.cast(), len))?;
        helpers::bpf_csum_diff(ptr::null_mut(), 0, scratch.cast(), len, sum)
    };
    if sum < 0 { Err(Refused) } else { Ok(sum as u32) }
}

#[inline(always)]
fn done(rc: impl Into<i64>) -> Done {
    if rc.into() < 0 { Err(Refused) } else { Ok(()) }
}

/// `len`, if it lies between 1 and CHUNK.
#[inline(always)]
fn bounded(len: u32) -> Done<u64> {
    let len = visible(len);
    if len == 0 || len > CHUNK as u64 {
        return Err(Refused);
    }
    Ok(len)
}

/// `value` in the register that it is tested and used in, so that the verifier sees the test bear
/// on the use. The compiler would test one copy and use another, or drop the test where it knows
/// better.
#[inline(always)]
fn visible(value: u32) -> u64 {
    let mut value = u64::from(value);
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) value, options(pure, nomem, nostack)) };
    value
}
