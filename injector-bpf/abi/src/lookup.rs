//! First match among thousands of rules, at a cost that hardly grows with them.
//!
//! A packet has a value on each of four axes. For each axis a trie with a byte a level leads from
//! the value to a row of bits, one for each rule that holds for it; it is as deep as the rules make
//! it. The four rows are intersected; the first bit left, counted from the most significant, is the
//! first rule that matches. A row begins with a summary, one bit for each of its words, which tells
//! most packets that no rule wants at once (the aggregated bit vector of Baboescu and Varghese,
//! SIGCOMM 2001).

use crate::maps::{ROW, Roots, Row, WORDS, is_row};

/// What a packet is looked up by, its bytes as they stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// Of both addresses: a [`Family`](crate::Family) as a number.
    pub family: u32,
    /// Source address. Of an IPv4 address, which is the last four bytes, the others are not looked
    /// at.
    pub saddr: &'a [u8; 16],
    /// Destination address, likewise.
    pub daddr: &'a [u8; 16],
    /// See [`port_root`](crate::port_root).
    pub port_root: u32,
    /// Source port; 0 where there is none.
    pub sport: [u8; 2],
    /// Destination port; 0 where there is none.
    pub dport: [u8; 2],
}

/// Where the lookup reads. The program reads maps, user space reads vectors.
pub trait Tables {
    /// Where the tries begin.
    fn roots(&self) -> &Roots;
    /// Words of a row that have bits of rules in them.
    fn words(&self) -> u32;
    /// What follows `byte` in the node at `index`.
    fn next(&self, index: u32, byte: u8) -> Option<u32>;
    /// The row at `index`.
    fn row(&self, index: u32) -> Option<&Row>;
    /// `number`, of which a verifier is to know nothing: whatever it is, there is one way from here.
    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        number
    }
    /// Number of the first rule in `matches`, which is word number `word` and not 0.
    #[inline(always)]
    fn number(&self, word: u32, matches: u64) -> u32 {
        word * u64::BITS + matches.leading_zeros()
    }
}

/// Number of the first rule that matches `key`.
#[inline(always)]
pub fn find_rule(tables: &impl Tables, key: &Key<'_>) -> Option<u32> {
    let roots = tables.roots();
    // Ports first: they tell a packet that no rule wants soonest.
    let dport = port_row(tables, root(tables, &roots.dport, key.port_root), key.dport)?;
    if dport.summary == 0 {
        return None;
    }
    let sport = port_row(tables, root(tables, &roots.sport, key.port_root), key.sport)?;
    let daddr = address_row(tables, &roots.daddr, key.family, key.daddr)?;
    let summary = dport.summary & sport.summary & daddr.summary;
    if summary == 0 {
        return None;
    }
    let saddr = address_row(tables, &roots.saddr, key.family, key.saddr)?;
    let summary = summary & saddr.summary;
    if summary == 0 {
        return None;
    }
    first_match(tables, summary, [dport, sport, daddr, saddr])
}

/// One of two, without an address to be worked out (see [`NODE_ENTRIES`](crate::NODE_ENTRIES)).
#[inline(always)]
fn one_of_two(&[a, b]: &[u32; 2], number: u32) -> u32 {
    let mask = 0_u32.wrapping_sub(number & 1);
    a & !mask | b & mask
}

/// One of four, likewise.
#[inline(always)]
fn root(tables: &impl Tables, &[a, b, c, d]: &[u32; 4], number: u32) -> u32 {
    let number = tables.forget(number);
    one_of_two(&[one_of_two(&[a, b], number), one_of_two(&[c, d], number)], number >> 1)
}

/// Number of the first rule that all rows have. `summary` is that of all of them.
///
/// Written out word by word. Without CAP_PERFMON the verifier also follows what a processor may do
/// ahead of a branch, where a loop's counter says nothing; and it refuses the pointer behind the
/// last word that a compiler makes of a loop.
#[inline(always)]
fn first_match(tables: &impl Tables, summary: u64, rows: [&Row; 4]) -> Option<u32> {
    let [a, b, c, d] = rows;
    let used = tables.words();
    const { assert!(WORDS == 64) };
    let (word, matches) = 'found: {
        macro_rules! words {
            ($($first:literal: $($word:literal)+;)+) => {$(
                // Eight words at once, where not one of them can have a bit.
                if $first < used && summary & (0xFF << 56 >> $first) != 0 {$(
                    let matches =
                        a.words[$word] & b.words[$word] & c.words[$word] & d.words[$word];
                    if matches != 0 {
                        break 'found ($word, matches);
                    }
                )+}
            )+};
        }
        words! {
            0: 0 1 2 3 4 5 6 7;
            8: 8 9 10 11 12 13 14 15;
            16: 16 17 18 19 20 21 22 23;
            24: 24 25 26 27 28 29 30 31;
            32: 32 33 34 35 36 37 38 39;
            40: 40 41 42 43 44 45 46 47;
            48: 48 49 50 51 52 53 54 55;
            56: 56 57 58 59 60 61 62 63;
        }
        return None;
    };
    Some(tables.number(word, matches))
}

/// Goes down a trie: one step for each byte, until a row is reached. `$next` is where it begins, and
/// in the end the row.
macro_rules! descend {
    ($tables:ident, $next:ident, $bytes:ident, $($at:literal)+) => {
        'row: {$(
            if is_row($next) {
                break 'row;
            }
            $next = $tables.next($next, $bytes[$at])?;
        )+}
    };
}

#[inline(always)]
fn port_row<T: Tables>(tables: &T, root: u32, port: [u8; 2]) -> Option<&Row> {
    let mut next = root;
    descend!(tables, next, port, 0 1);
    tables.row(next & !ROW)
}

#[inline(always)]
fn address_row<'a, T: Tables>(
    tables: &'a T,
    roots: &[u32; 2],
    family: u32,
    address: &[u8; 16],
) -> Option<&'a Row> {
    let mut next = one_of_two(roots, tables.forget(family));
    if tables.forget(family) != 0 {
        descend!(tables, next, address, 0 1 2 3 4 5 6 7 8 9 10 11);
    }
    descend!(tables, next, address, 12 13 14 15);
    tables.row(next & !ROW)
}

/// The bit for number `n` of 64: the most significant one for 0.
///
/// The program counts leading zeros, because for trailing ones the BPF backend makes a table in
/// .rodata.
#[inline(always)]
pub const fn bit(n: u32) -> u64 {
    (1 << (u64::BITS - 1)) >> (n % u64::BITS)
}
