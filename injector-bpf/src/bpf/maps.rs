//! The maps. The loader sets how many entries each has.

use abi::{Config, Counter, NodeEntry, Reason, Row, RuleEntry, SourceChunk};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};

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
/// Room for packet bytes, too much for the 512 bytes of stack.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Bytes that `bpf_csum_diff` takes in one call, at the most, in kernels before 6.14.
pub const CHUNK: usize = 512;

/// A chunk.
#[repr(C, align(8))]
pub struct Scratch([u8; CHUNK]);

/// Counts a packet that rule `number` was carried out on. `bytes` is its IP length on arrival.
#[inline(always)]
pub fn count_rule(number: u32, bytes: u32) {
    if let Some(counter) = RULE_COUNTERS.get_ptr_mut(number) {
        // SAFETY: the entry is this CPU's own, and a tc program is not preempted by itself.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// Counts a packet that was not treated as its rule says.
#[inline(always)]
pub fn count_reason(reason: Reason) {
    if let Some(counter) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: as in `count_rule`.
        unsafe { *counter += 1 };
    }
}
