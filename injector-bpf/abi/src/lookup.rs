//! First match among thousands of rules, at a cost that hardly grows with them.
//!
//! Each axis is cut into intervals within which the same rules hold. An interval names a row of
//! bits, one for each rule. A packet's four rows are intersected; the first bit left, counted from
//! the most significant, is the first rule that matches. A row begins with a summary, one bit for each of its words, so that words
//! that can't hold a match are never read (the aggregated bit vector of Baboescu and Varghese,
//! SIGCOMM 2001).

use crate::maps::{Axis, Interval, axis};

/// What a packet is looked up by: a value for each of [`axis`].
pub type Key = [u32; axis::COUNT];

/// Where the lookup reads. The program reads maps, user space reads vectors.
pub trait Tables {
    /// Where axis number `axis` lies.
    fn axis(&self, axis: usize) -> Axis;
    /// The interval at `index`.
    fn interval(&self, index: u32) -> Option<Interval>;
    /// The word of bits at `index`.
    fn bits(&self, index: u32) -> Option<u64>;
}

/// Steps of the binary search: an axis has at most 2^16 intervals.
const STEPS: u32 = 16;

/// Number of the first rule that matches `key`.
#[inline(always)]
pub fn find_rule(tables: &impl Tables, key: &Key) -> Option<u32> {
    // Ports first: they tell a packet that no rule wants soonest.
    let dport = row(tables, axis::DPORT, key[axis::DPORT])?;
    let sport = row(tables, axis::SPORT, key[axis::SPORT])?;
    let mut summary = tables.bits(dport)? & tables.bits(sport)?;
    if summary == 0 {
        return None;
    }
    let daddr = row(tables, axis::DADDR, key[axis::DADDR])?;
    let saddr = row(tables, axis::SADDR, key[axis::SADDR])?;
    summary &= tables.bits(daddr)? & tables.bits(saddr)?;

    // At most one turn for each bit; a bounded loop for the verifier.
    for _ in 0..u64::BITS {
        if summary == 0 {
            return None;
        }
        // Leading zeros, because for trailing ones the BPF backend makes a table in .rodata.
        let word = summary.leading_zeros();
        let at = 1 + word;
        let matches = tables.bits(dport + at)?
            & tables.bits(sport + at)?
            & tables.bits(daddr + at)?
            & tables.bits(saddr + at)?;
        if matches != 0 {
            return Some(word * u64::BITS + matches.leading_zeros());
        }
        summary &= !bit(word);
    }
    None
}

/// The bit for number `n` of 64: the most significant one for 0.
#[inline(always)]
pub const fn bit(n: u32) -> u64 {
    (1 << (u64::BITS - 1)) >> (n % u64::BITS)
}

/// Row of the interval of `axis` that `value` lies in.
#[inline(always)]
fn row(tables: &impl Tables, axis: usize, value: u32) -> Option<u32> {
    let Axis { first, len } = tables.axis(axis);
    // The last interval that starts at or before `value` lies in [low, low + size).
    let mut low = 0;
    let mut size = len;
    for _ in 0..=STEPS {
        if size <= 1 {
            break;
        }
        let half = size / 2;
        if tables.interval(first + low + half)?.start <= value {
            low += half;
        }
        size -= half;
    }
    Some(tables.interval(first + low)?.row)
}
