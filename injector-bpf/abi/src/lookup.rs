//! First match among thousands of rules, at a cost that hardly grows with them.
//!
//! A packet has a value on each of four axes. For each axis a trie with a byte a level leads from
//! the value to a row of bits, one for each rule that holds for it. Every path is as long as every
//! other, so that the way down is a straight line of loads. The four rows are intersected; the first
//! bit left, counted from the most significant, is the first rule that matches. A row begins with a
//! summary, one bit for each of its words, which tells most packets that no rule wants at once (the
//! aggregated bit vector of Baboescu and Varghese, SIGCOMM 2001).

use crate::maps::{Node, Roots, Row, WORDS};

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
    /// The node at `index`.
    fn node(&self, index: u32) -> Option<&Node>;
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
    let root = (key.port_root & 3) as usize;
    let dport = port_row(tables, roots.dport[root], key.dport)?;
    let sport = port_row(tables, roots.sport[root], key.sport)?;
    let summary = dport.summary & sport.summary;
    if summary == 0 {
        return None;
    }
    let daddr = address_row(tables, roots.daddr, key.daddr)?;
    let saddr = address_row(tables, roots.saddr, key.saddr)?;
    if summary & daddr.summary & saddr.summary == 0 {
        return None;
    }
    // In order and without a branch to skip words, so that the verifier sees one path alone.
    for word in 0..WORDS {
        let matches = dport.words[word] & sport.words[word] & daddr.words[word] & saddr.words[word];
        if matches != 0 {
            return Some(tables.number(word as u32, matches));
        }
    }
    None
}

#[inline(always)]
fn port_row<T: Tables>(tables: &T, root: u32, port: u16) -> Option<&Row> {
    let [high, low] = port.to_be_bytes();
    let next = tables.node(root)?[usize::from(high)];
    tables.row(tables.node(next)?[usize::from(low)])
}

#[inline(always)]
fn address_row<T: Tables>(tables: &T, root: u32, address: u32) -> Option<&Row> {
    let [a, b, c, d] = address.to_be_bytes();
    let next = tables.node(root)?[usize::from(a)];
    let next = tables.node(next)?[usize::from(b)];
    let next = tables.node(next)?[usize::from(c)];
    tables.row(tables.node(next)?[usize::from(d)])
}

/// The bit for number `n` of 64: the most significant one for 0.
///
/// The program counts leading zeros, because for trailing ones the BPF backend makes a table in
/// .rodata.
#[inline(always)]
pub const fn bit(n: u32) -> u64 {
    (1 << (u64::BITS - 1)) >> (n % u64::BITS)
}
