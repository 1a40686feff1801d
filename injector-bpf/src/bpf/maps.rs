//! The maps. The loader sets how many entries each has.

use abi::{Config, Counter, NodeEntry, Reason, Row, RuleEntry, SourceChunk};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};

use super::ip::IpHeader;
use super::packet::Packet;

#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
pub static NODES: Array<NodeEntry> = Array::with_max_entries(1, 0);
#[map]
pub static ROWS: Array<Row> = Array::with_max_entries(1, 0);
#[map]
pub static RULES: Array<RuleEntry> = Array::with_max_entries(1, 0);
#[map]
pub static RULE_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::ALL.len() as u32, 0);
/// Never read here; it travels with the program so that `show` can tell what it does.
#[map]
pub static SOURCE: Array<SourceChunk> = Array::with_max_entries(1, 0);
/// What the program knows of the packet in hand.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Bytes that `bpf_csum_diff` takes in one call, at the most, in kernels before 6.14.
pub const CHUNK: usize = 512;

/// Bytes of the longest header that is read or written in one piece.
pub const HEADER: usize = 48;

/// Working memory, this CPU's own, for one packet at a time.
///
/// Not on the stack, of which the verifier follows every slot: whichever way the program has come,
/// of this memory it knows nothing, and so there is one way from there on. Nor does it put a fence
/// behind each first write to it, as without CAP_PERFMON it does on the stack.
///
/// A tc program is not interrupted by another one on its CPU. But with PREEMPT_RT, from Linux 6.18 on,
/// it is on the way out (docs/datapath.md, "Limits").
#[repr(C, align(8))]
pub struct Scratch {
    /// Index into another map.
    pub key: u32,
    /// What the packet is.
    pub packet: Packet,
    /// The IP header that it quotes, if it is an ICMP error.
    pub quoted: IpHeader,
    /// Between the packet and a variable.
    pub header: [u64; HEADER / 8],
    /// Bytes that are moved or summed up.
    pub chunk: [u8; CHUNK],
}

/// Counts a packet that rule `number` was carried out on. `bytes` is its IP length on arrival.
#[inline(always)]
pub fn count_rule(number: u32, bytes: u32) {
    if let Some(counter) = RULE_COUNTERS.get_ptr_mut(number) {
        // SAFETY: the entry is this CPU's own: see `Scratch`.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// Counts a packet that was not treated as its rule says, for this [`Reason`].
#[inline(always)]
pub fn count_reason(reason: u32) {
    if let Some(counter) = REASONS.get_ptr_mut(reason) {
        // SAFETY: as in `count_rule`.
        unsafe { *counter += 1 };
    }
}
