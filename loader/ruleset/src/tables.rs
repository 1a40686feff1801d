//! Rules to tables: what the BPF maps will hold.
//!
//! `abi::find_rule` tells how a packet is looked up in them.

use std::collections::HashMap;

use abi::{Family, MAX_NODES, MAX_ROWS, Node, ROW, Roots, Row, RuleEntry, WORDS, bit};
use foldhash::fast::RandomState;

use crate::ast::Ruleset;
use crate::axes::{DADDR, DPORT, FAMILY, RuleAxes, SADDR, SPORT};
use crate::diagnostic::Kind;
use crate::entry::entry;

/// The compiled ruleset, in the layout of crate `abi`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Where the tries begin.
    pub roots: Roots,
    /// What the `NODES` map is made of.
    pub nodes: Vec<Node>,
    /// The `ROWS` map.
    pub rows: Vec<Row>,
    /// The `RULES` map.
    pub rules: Vec<RuleEntry>,
}

impl abi::Tables for Tables {
    fn roots(&self) -> &Roots {
        &self.roots
    }

    fn words(&self) -> u32 {
        index(self.rules.len().div_ceil(64))
    }

    fn next(&self, index: u32, byte: u8) -> Option<u32> {
        self.nodes.get(index as usize).map(|node| node[usize::from(byte)])
    }

    fn row(&self, index: u32) -> Option<&Row> {
        self.rows.get(index as usize)
    }
}

impl Tables {
    pub(crate) fn build(ruleset: &Ruleset, rules: &[RuleAxes]) -> Result<Self, Kind> {
        let mut rows = Rows::default();
        let mut tries = Tries::default();
        let roots = Roots {
            saddr: addresses(rules, SADDR, &mut rows, &mut tries)?,
            daddr: addresses(rules, DADDR, &mut rows, &mut tries)?,
            sport: ports(rules, SPORT, &mut rows, &mut tries)?,
            dport: ports(rules, DPORT, &mut rows, &mut tries)?,
        };
        let rules = ruleset.rules.iter().map(entry).collect();
        Ok(Self { roots, nodes: tries.nodes, rows: rows.rows, rules })
    }
}

/// One trie for each family, in which the rules for the other one have no bits.
fn addresses(
    rules: &[RuleAxes],
    axis: usize,
    rows: &mut Rows,
    tries: &mut Tries,
) -> Result<[u32; 2], Kind> {
    let mut roots = [0; 2];
    for family in [Family::Ip, Family::Ip6] {
        let number = family as u128;
        let holds = |rule: &RuleAxes| rule[FAMILY].iter().any(|r| r.0 <= number && number <= r.1);
        let rules = rules.iter().map(|rule| if holds(rule) { &rule[axis][..] } else { &[] });
        roots[family as usize] = tries.build(&intervals(rules, rows)?, 0, u128::BITS)?;
    }
    Ok(roots)
}

/// One trie for each `port_root`.
fn ports(
    rules: &[RuleAxes],
    axis: usize,
    rows: &mut Rows,
    tries: &mut Tries,
) -> Result<[u32; 4], Kind> {
    let intervals = intervals(rules.iter().map(|rule| &rule[axis][..]), rows)?;
    let mut roots = [0; 4];
    for (number, root) in (0..).zip(&mut roots) {
        *root = tries.build(&intervals, number << u16::BITS, u16::BITS)?;
    }
    Ok(roots)
}

/// One interval of an axis: it reaches from `start` to the next one's start.
struct Interval {
    start: u128,
    /// Index of the row that holds for it.
    row: u32,
}

/// Sweeps over an axis: wherever a rule begins or ends, a new interval begins. The first begins at
/// 0.
fn intervals<'a>(
    rules: impl Iterator<Item = &'a [(u128, u128)]>,
    rows: &mut Rows,
) -> Result<Vec<Interval>, Kind> {
    let mut edges: Vec<(u128, usize)> = Vec::new();
    for (rule, ranges) in rules.enumerate() {
        for &(first, last) in ranges {
            edges.push((first, rule));
            // Behind the axis' last value nothing begins.
            edges.extend(last.checked_add(1).map(|next| (next, rule)));
        }
    }
    edges.sort_unstable();

    let mut intervals = Vec::new();
    let mut current = [0; WORDS];
    let mut start = 0;
    let mut edges = edges.into_iter().peekable();
    loop {
        // Ranges of a rule don't touch, so each edge turns its bit.
        while let Some((_, rule)) = edges.next_if(|&(at, _)| at == start) {
            current[rule / 64] ^= bit(index(rule));
        }
        intervals.push(Interval { start, row: rows.insert(&current)? });
        match edges.peek() {
            Some(&(next, _)) => start = next,
            None => return Ok(intervals),
        }
    }
}

/// The `ROWS` map while it grows. Equal rows are kept once.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    known: HashMap<[u64; WORDS], u32, RandomState>,
}

impl Rows {
    fn insert(&mut self, words: &[u64; WORDS]) -> Result<u32, Kind> {
        if let Some(&at) = self.known.get(words) {
            return Ok(at);
        }
        if self.rows.len() == MAX_ROWS {
            return Err(Kind::TooComplex(MAX_ROWS, "rows of lookup table"));
        }
        let summary = (0..)
            .zip(words)
            .filter(|&(_, &word)| word != 0)
            .fold(0, |summary, (number, _)| summary | bit(number));
        let at = index(self.rows.len());
        self.rows.push(Row { summary, words: *words });
        self.known.insert(*words, at);
        Ok(at)
    }
}

/// The `NODES` map while it grows.
#[derive(Default)]
struct Tries {
    nodes: Vec<Node>,
}

impl Tries {
    /// The trie for the last `bits` of keys that begin with those of `start`; a row where it needs
    /// no node. No IPv4 network begins behind the 32nd bit, so the trie for them ends there.
    fn build(&mut self, intervals: &[Interval], start: u128, bits: u32) -> Result<u32, Kind> {
        // The interval that `start` lies in, and those that begin behind it in the same block.
        let at = intervals.partition_point(|interval| interval.start <= start) - 1;
        let last = start | u128::MAX.checked_shr(u128::BITS - bits).unwrap_or(0);
        let end = intervals.partition_point(|interval| interval.start <= last);
        let here = &intervals[at..end];
        if let [Interval { row, .. }] = here {
            return Ok(ROW | row);
        }
        let mut node = [0; 256];
        for (byte, next) in (0..).zip(&mut node) {
            *next = self.build(here, start | byte << (bits - 8), bits - 8)?;
        }
        if self.nodes.len() == MAX_NODES {
            return Err(Kind::TooComplex(MAX_NODES, "nodes of lookup table"));
        }
        self.nodes.push(node);
        Ok(index(self.nodes.len() - 1))
    }
}

/// Indices stay far below [`ROW`]: the texts that rulesets are made of are shorter.
fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a ruleset has at most 256 KiB")
}
