//! The maps as [`abi::find_rule`] reads them.

use abi::{Axis, Config, Interval, Tables};

use crate::maps::{BITS, INTERVALS};

/// The tables of the ruleset that is loaded.
pub struct MapTables<'a>(pub &'a Config);

impl Tables for MapTables<'_> {
    #[inline(always)]
    fn axis(&self, axis: usize) -> Axis {
        self.0.axes[axis]
    }

    #[inline(always)]
    fn interval(&self, index: u32) -> Option<Interval> {
        INTERVALS.get(index).copied()
    }

    #[inline(always)]
    fn bits(&self, index: u32) -> Option<u64> {
        BITS.get(index).copied()
    }
}
