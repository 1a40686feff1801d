//! The maps as [`abi::find_rule`] reads them.

use abi::{Config, Roots, Row, Tables, node_entry};

use super::maps::{NODES, ROWS};
use super::skb::Skb;

/// The tables of the ruleset that is loaded.
pub struct MapTables<'a> {
    pub config: &'a Config,
    pub skb: &'a Skb,
}

impl Tables for MapTables<'_> {
    #[inline(always)]
    fn roots(&self) -> &Roots {
        &self.config.roots
    }

    #[inline(always)]
    fn words(&self) -> u32 {
        self.config.words
    }

    #[inline(always)]
    fn next(&self, index: u32, byte: u8) -> Option<u32> {
        let (entry, shift) = node_entry(index, byte);
        Some((self.skb.entry(&NODES, entry)? >> shift) as u32)
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<&Row> {
        self.skb.entry(&ROWS, index)
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        self.skb.forget(number)
    }

    #[inline(always)]
    fn number(&self, word: u32, matches: u64) -> u32 {
        // The verifier comes here once for each word. It compares notes at branches alone; here is
        // one, which is never taken, at which 63 of them end.
        let word = self.skb.forget(word);
        if word == u32::MAX {
            return 0;
        }
        word * u64::BITS + matches.leading_zeros()
    }
}
