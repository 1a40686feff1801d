//! First match among thousands of rules, at a cost that hardly grows with them.
//!
//! A packet has a value on each of four axes. For each axis a trie with a byte a level leads from
//! the value to a row of bits, one for each rule that holds for it. Every path is as long as every
//! other, so that the way down is a straight line of loads. The four rows are intersected; the
//! first bit left, counted from the most significant, is the first rule that matches. A row begins
//! with a summary, one bit for each of its words, which tells most packets that no rule wants at
//! once (the aggregated bit vector of Baboescu and Varghese, SIGCOMM 2001).

use crate::maps::{Roots, Row, WORDS};

/// What a packet is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Source address, in host byte order.
    pub saddr: u32,
    /// Destination address, in host byte order.
    pub daddr: u32,
    /// See [`port_root`](crate::port_root).
    pub port_root: u32,
    /// Source port; 0 where there is none.
    pub sport: u16,
    /// Destination port; 0 where there is none.
    pub dport: u16,
}

/// Where the lookup reads. The program reads maps, user space reads vectors.
pub trait Tables {
    /// Where the tries begin.
    fn roots(&self) -> &Roots;
    /// What follows `byte` in the node at `index`.
    fn next(&self, index: u32, byte: u8) -> Option<u32>;
    /// The row at `index`.
    fn row(&self, index: u32) -> Option<&Row>;
    /// Number of the first rule in `matches`, which is word number `word` and not 0.
    #[inline(always)]
    fn number(&self, word: u32, matches: u64) -> u32 {
        word * u64::BITS + matches.leading_zeros()
    }
}

/// Number of the first rule that matches `key`.
#[inline(always)]
pub fn find_rule(tables: &impl Tables, key: &Key) -> Option<u32> {
    let roots = tables.roots();
    // Ports first: they tell a packet that no rule wants soonest.
    let dport = port_row(tables, root(&roots.dport, key.port_root), key.dport)?;
    let sport = port_row(tables, root(&roots.sport, key.port_root), key.sport)?;
    let summary = dport.summary & sport.summary;
    if summary == 0 {
        return None;
    }
    let daddr = address_row(tables, roots.daddr, key.daddr)?;
    let saddr = address_row(tables, roots.saddr, key.saddr)?;
    if summary & daddr.summary & saddr.summary == 0 {
        return None;
    }
    first_match(tables, [dport, sport, daddr, saddr])
}

/// One of four, without an address to be worked out (see [`NODE_ENTRIES`](crate::NODE_ENTRIES)).
#[inline(always)]
fn root(roots: &[u32; 4], number: u32) -> u32 {
    let [a, b, c, d] = *roots;
    let (low, high) = (0_u32.wrapping_sub(number & 1), 0_u32.wrapping_sub(number >> 1 & 1));
    let lower = a & !low | b & low;
    let upper = c & !low | d & low;
    lower & !high | upper & high
}

/// Number of the first rule that all rows have.
///
/// Written out word by word. Without CAP_PERFMON the verifier also follows what a processor may do
/// ahead of a branch, where a loop's counter says nothing; and it refuses the pointer behind the
/// last word that a compiler makes of a loop.
#[inline(always)]
fn first_match(tables: &impl Tables, rows: [&Row; 4]) -> Option<u32> {
    let [a, b, c, d] = rows;
    const { assert!(WORDS == 64) };
    let (word, matches) = 'found: {
        macro_rules! words {
            ($($word:literal)+) => {$(
                let matches = a.words[$word] & b.words[$word] & c.words[$word] & d.words[$word];
                if matches != 0 {
                    break 'found ($word, matches);
                }
            )+};
        }
        words! {
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
            33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61
            62 63
        }
        return None;
    };
    Some(tables.number(word, matches))
}

#[inline(always)]
fn port_row<T: Tables>(tables: &T, root: u32, port: u16) -> Option<&Row> {
    let [high, low] = port.to_be_bytes();
    let next = tables.next(root, high)?;
    tables.row(tables.next(next, low)?)
}

#[inline(always)]
fn address_row<T: Tables>(tables: &T, root: u32, address: u32) -> Option<&Row> {
    let [a, b, c, d] = address.to_be_bytes();
    let next = tables.next(root, a)?;
    let next = tables.next(next, b)?;
    let next = tables.next(next, c)?;
    tables.row(tables.next(next, d)?)
}

/// The bit for number `n` of 64: the most significant one for 0.
///
/// The program counts leading zeros, because for trailing ones the BPF backend makes a table in
/// .rodata.
#[inline(always)]
pub const fn bit(n: u32) -> u64 {
    (1 << (u64::BITS - 1)) >> (n % u64::BITS)
}
