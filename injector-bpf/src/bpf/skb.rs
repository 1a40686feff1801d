//! The kernel's packet buffer, by offsets from the start of the frame.

use core::ffi::c_void;
use core::ops::Add;
use core::ptr;

use abi::Reason;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_RECOMPUTE_CSUM,
    bpf_adj_room_mode::{BPF_ADJ_ROOM_MAC, BPF_ADJ_ROOM_NET},
    bpf_hdr_start_off::BPF_HDR_START_NET,
};
use aya_ebpf::helpers::generated as helpers;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;

use super::checksum::Sum;
use super::ip::IpHeader;
use super::linear::Linear;
use super::maps::{CHUNK, HEADER, SCRATCH, Scratch};
use super::packet::Packet;
use super::verifier::{call_with_len, helper, visible, write_in_words};

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
unsafe impl Plain for u8 {}
// SAFETY: integers.
unsafe impl Plain for u16 {}
// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: by the contract of T.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The packet in hand.
pub struct Skb {
    ctx: *mut __sk_buff,
    scratch: *mut Scratch,
    /// Whether packet pointers may be compared. A constant wherever it is asked for.
    direct: bool,
}

impl Skb {
    #[inline(always)]
    pub fn new(ctx: &TcContext, direct: bool) -> Option<Self> {
        Some(Self { ctx: ctx.skb.skb, scratch: SCRATCH.get_ptr_mut(0)?, direct })
    }

    #[inline(always)]
    fn ctx(&self) -> &__sk_buff {
        // SAFETY: the kernel hands the program a valid context.
        unsafe { &*self.ctx }
    }

    /// Entry `index` of `map`.
    #[inline(always)]
    pub fn entry<T>(&self, map: &'static Array<T>, index: u32) -> Option<&'static T> {
        // SAFETY: an `Array` is its definition. The map's values are valid for T, and stay.
        unsafe {
            let key = &raw mut (*self.scratch).key;
            key.write(index);
            let map = ptr::from_ref(map).cast_mut().cast();
            helpers::bpf_map_lookup_elem(map, key.cast_const().cast()).cast::<T>().as_ref()
        }
    }

    /// Where the packet is described: see [`Scratch`].
    #[inline(always)]
    pub fn packet(&self) -> &mut Packet {
        // SAFETY: within the scratch, and asked for once.
        unsafe { &mut (*self.scratch).packet }
    }

    /// Where the header that an ICMP error quotes is described.
    #[inline(always)]
    pub fn quoted(&self) -> &mut IpHeader {
        // SAFETY: as above.
        unsafe { &mut (*self.scratch).quoted }
    }

    /// The same thing, but every field read anew: what the program has learnt of one, each way
    /// something else, is forgotten, and the ways join.
    #[inline(always)]
    pub fn again<'a, T>(&self, kept: &'a T) -> &'a T {
        let mut kept = ptr::from_ref(kept);
        // SAFETY: no instruction at all, so the pointer is what it was.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) kept, options(nostack));
            &*kept
        }
    }

    /// Bytes in the frame.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.ctx().len
    }

    /// The frame's first `LEN` bytes, if the kernel holds them in one piece and the program may look.
    #[inline(always)]
    pub fn linear<const LEN: usize>(&self) -> Option<Linear<LEN>> {
        if !self.direct {
            return None;
        }
        Linear::new(self.ctx().data as usize, self.ctx().data_end as usize)
    }

    /// Number of the interface.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        self.ctx().ifindex
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
        let value = self.header::<T>();
        // SAFETY: the helper writes all of `value` or fails; T takes any bytes.
        unsafe {
            let len = size_of::<T>() as u32;
            done(helpers::bpf_skb_load_bytes(self.ctx.cast(), at.0, value.cast(), len))?;
            Ok(value.read())
        }
    }

    /// Reads what `to` points to from the frame: for what would take the way over the stack.
    #[inline(always)]
    pub fn load_to<T: Plain>(&self, at: Offset, to: &mut T) -> Done {
        let (to, len) = (ptr::from_mut(to), size_of::<T>() as u32);
        // SAFETY: the helper writes all of it or zeros; T takes any bytes.
        done(unsafe { helpers::bpf_skb_load_bytes(self.ctx.cast(), at.0, to.cast(), len) })
    }

    /// Writes `value`, and keeps the sum that the network card may have delivered right.
    #[inline(always)]
    pub fn store<T: Plain>(&self, at: Offset, value: &T) -> Done {
        self.store_with(at, value, BPF_F_RECOMPUTE_CSUM)
    }

    /// Writes what `from` points to, which is in a map, as [`Skb::store`] does.
    #[inline(always)]
    pub fn store_from<T: Plain>(&self, at: Offset, from: &T) -> Done {
        let (from, len) = (ptr::from_ref(from).cast(), size_of::<T>() as u32);
        // SAFETY: a T has its size in bytes.
        unsafe { self.store_bytes(at, from, len, BPF_F_RECOMPUTE_CSUM) }
    }

    /// Writes `value` where a checksum within the packet has been updated for it: then the sum over
    /// both, which the network card may have delivered, is as before.
    #[inline(always)]
    pub fn store_summed<T: Plain>(&self, at: Offset, value: &T) -> Done {
        self.store_with(at, value, 0)
    }

    #[inline(always)]
    fn store_with<T: Plain>(&self, at: Offset, value: &T, flags: u32) -> Done {
        let from = self.header::<T>();
        // SAFETY: a T fits, and has its size in bytes.
        unsafe {
            write_in_words(from, value);
            self.store_bytes(at, from.cast_const().cast(), size_of::<T>() as u32, flags)
        }
    }

    /// Where a T stands on its way.
    #[inline(always)]
    fn header<T: Plain>(&self) -> *mut T {
        const { assert!(size_of::<T>() <= HEADER && align_of::<T>() <= 8) };
        // SAFETY: within the scratch.
        unsafe { (&raw mut (*self.scratch).header).cast() }
    }

    /// # Safety
    ///
    /// `from` points to `len` bytes.
    #[inline(always)]
    unsafe fn store_bytes(&self, at: Offset, from: *const c_void, len: u32, flags: u32) -> Done {
        // SAFETY: by the contract.
        done(unsafe { helpers::bpf_skb_store_bytes(self.ctx, at.0, from, len, flags.into()) })
    }

    /// Copies `len` bytes to the scratch: at least one, at most a chunk.
    #[inline(always)]
    pub fn save(&self, at: Offset, len: u32) -> Done<Saved> {
        if !(1..=CHUNK as u32).contains(&len) {
            return Err(Refused);
        }
        // SAFETY: the chunk has room for so many bytes.
        done(unsafe {
            call_with_len::<{ helper::SKB_LOAD_BYTES }, 1>(
                self.ctx.cast(),
                at.0.into(),
                self.chunk().cast(),
                len,
                0,
            )
        })?;
        Ok(Saved { len })
    }

    /// Writes back what was saved last.
    #[inline(always)]
    pub fn restore(&self, at: Offset, saved: &Saved) -> Done {
        // SAFETY: the chunk has so many bytes.
        done(unsafe {
            call_with_len::<{ helper::SKB_STORE_BYTES }, 1>(
                self.ctx.cast(),
                at.0.into(),
                self.chunk().cast(),
                saved.len,
                BPF_F_RECOMPUTE_CSUM.into(),
            )
        })
    }

    /// Sum of `len` bytes from `at`: at least four, at most [`MAX_SUM`].
    #[inline(always)]
    pub fn sum(&self, at: Offset, len: u32) -> Done<Sum> {
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
                    // SAFETY: a chunk.
                    sum = unsafe { self.sum_chunk(at, CHUNK as u32, sum)? };
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
        let words = left as u32 & !3;
        if words > 0 {
            // SAFETY: less than a chunk.
            sum = unsafe { self.sum_chunk(at, words, sum)? };
        }
        // Up to three bytes are left. They end the packet's last four, of which those before them
        // are shifted out; what is shifted in takes the place of the bytes that a word lacks (RFC
        // 1071, 4.1). No branch, which would be a path for the verifier.
        let last = u32::from_le(self.load::<u32>(Offset(end.0 - 4))?);
        let rest = u64::from(last) >> (8 * (4 - (left & 3)));
        let sum = Sum::from_words(sum).plus32((rest as u32).to_le());
        Ok(sum)
    }

    /// Sum of `len` bytes from `at`: a multiple of four, at least four, at most a chunk.
    #[inline(always)]
    pub fn sum_header(&self, at: Offset, len: u32) -> Done<Sum> {
        if !(4..=CHUNK as u32).contains(&len) {
            return Err(Refused);
        }
        // SAFETY: by the contract, and as was tested.
        unsafe { self.sum_chunk(at, len, 0).map(Sum::from_words) }
    }

    /// Adds `len` bytes of the packet to `sum`.
    ///
    /// # Safety
    ///
    /// `len` is a multiple of four, at least four and at most a chunk.
    #[inline(always)]
    unsafe fn sum_chunk(&self, at: Offset, len: u32, sum: u32) -> Done<u32> {
        let chunk = self.chunk().cast();
        // SAFETY: the chunk has room for so many bytes, and has them then.
        let sum = unsafe {
            let (ctx, at) = (self.ctx.cast(), at.0.into());
            done(call_with_len::<{ helper::SKB_LOAD_BYTES }, 4>(ctx, at, chunk, len, 0))?;
            call_with_len::<{ helper::CSUM_DIFF }, 4>(ptr::null_mut(), 0, chunk, len, sum.into())
        };
        if sum < 0 { Err(Refused) } else { Ok(sum as u32) }
    }

    #[inline(always)]
    fn chunk(&self) -> *mut [u8; CHUNK] {
        // SAFETY: within the scratch.
        unsafe { &raw mut (*self.scratch).chunk }
    }

    /// Makes the frame longer or shorter right behind an IP header, in front of IPv4's options.
    #[inline(always)]
    pub fn adjust_room(&self, bytes: i32) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_adjust_room(self.ctx, bytes, BPF_ADJ_ROOM_NET, 0) })
    }

    /// Makes the frame longer in front of its IP header.
    #[inline(always)]
    pub fn make_room_for_ip(&self, bytes: u32) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_adjust_room(self.ctx, bytes as i32, BPF_ADJ_ROOM_MAC, 0) })
    }

    /// Whether the kernel takes the same place for the IP header's start, of which these are the first
    /// four bytes: the helpers that make room go by it, and by its own idea of the family.
    #[inline(always)]
    pub fn agrees(&self, ethertype: u16, first: u32) -> bool {
        let seen = self.header::<u32>();
        // SAFETY: a u32 fits.
        let (rc, seen) = unsafe {
            let (to, net) = (seen.cast(), BPF_HDR_START_NET);
            let rc = helpers::bpf_skb_load_bytes_relative(self.ctx.cast(), 0, to, 4, net);
            (rc, seen.read())
        };
        // Where the header lies in another piece of memory, there is nothing to compare.
        self.protocol() == ethertype && (rc < 0 || seen == first)
    }

    /// Forgets what other parts of the kernel have noted for the packet's way: its mark, and the
    /// queue that it was to leave by.
    #[inline(always)]
    pub fn clear_way(&self) {
        // SAFETY: the context is valid, and these fields may be written: one by one, as it has them.
        unsafe {
            (&raw mut (*self.ctx).mark).write_volatile(0);
            (&raw mut (*self.ctx).queue_mapping).write_volatile(0);
        }
    }

    /// Has the frame received by `interface`, once the program returns `TC_ACT_REDIRECT`.
    #[inline(always)]
    pub fn redirect_to_ingress(&self, interface: u32) {
        // SAFETY: only notes where to. For an interface that is there it can't fail.
        unsafe { helpers::bpf_redirect(interface, BPF_F_INGRESS.into()) };
    }

    /// Makes the frame `len` bytes long, at its end.
    #[inline(always)]
    pub fn change_len(&self, len: u32) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_change_tail(self.ctx, len, 0) })
    }

    /// Removes the outermost VLAN tag. The next one in the frame, if any, is then held apart.
    #[inline(always)]
    pub fn vlan_pop(&self) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_vlan_pop(self.ctx) })
    }

    /// Adds a VLAN tag outside all others.
    #[inline(always)]
    pub fn vlan_push(&self, tpid: u16, tci: u16) -> Done {
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_skb_vlan_push(self.ctx, tpid, tci) })
    }

    /// The packet belongs to another flow now.
    #[inline(always)]
    pub fn set_hash_invalid(&self) {
        // SAFETY: the context is valid.
        unsafe { helpers::bpf_set_hash_invalid(self.ctx) };
    }

    /// Replaces four bytes of a TCP or UDP segment in its checksum at `at`, unless that is yet to be
    /// finished. The bytes themselves are to be stored by [`Skb::store_summed`].
    #[inline(always)]
    pub fn replace_in_checksum(&self, at: Offset, old: u32, new: u32, udp: bool) -> Done {
        let flags = 4 | if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        // SAFETY: the context is valid.
        done(unsafe { helpers::bpf_l4_csum_replace(self.ctx, at.0, old.into(), new.into(), flags) })
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
        done(unsafe { helpers::bpf_l4_csum_replace(self.ctx, at.0, 0, 1, 2) })?;
        if self.load::<u16>(at).map_err(|Refused| Reason::Dropped)? == check {
            return Ok(true);
        }
        // Without BPF_F_RECOMPUTE_CSUM: the helper above did not touch the card's sum either.
        self.store_summed(at, &check).map_err(|Refused| Reason::Dropped)?;
        Ok(false)
    }
}

/// Bytes that were copied to the scratch; the next use of it overwrites them.
pub struct Saved {
    len: u32,
}

#[inline(always)]
fn done(rc: impl Into<i64>) -> Done {
    if rc.into() < 0 { Err(Refused) } else { Ok(()) }
}
