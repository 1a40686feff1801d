//! Rules to tables: what the BPF maps will hold.
//!
//! `abi::find_rule` tells how a packet is looked up in them.

use std::collections::HashMap;

use abi::{
    MAX_NODES, MAX_ROWS, Node, Roots, Row, RuleAction, RuleEntry, WORDS, bit, flag, port_root,
};

use crate::ast::{Action, Cidr, Match, PortRange, Protocol, Rule, Ruleset};
use crate::diagnostic::Kind;

/// Values of one axis, as sorted, disjoint ranges that include both ends.
pub(crate) type Ranges = Vec<(u32, u32)>;

/// What a rule matches: the product of its axes.
pub(crate) type RuleAxes = [Ranges; AXES];

/// Source address, destination address, source port, destination port. Ports come with their
/// protocol, see [`port_value`].
pub(crate) const AXES: usize = 4;

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
        let axis = |axis: usize| rules.iter().map(move |rule| rule[axis].as_slice());
        let saddr = intervals(axis(0), &mut rows)?;
        let daddr = intervals(axis(1), &mut rows)?;
        let sport = intervals(axis(2), &mut rows)?;
        let dport = intervals(axis(3), &mut rows)?;
        let roots = Roots {
            saddr: tries.build(&saddr, 0, 4)?,
            daddr: tries.build(&daddr, 0, 4)?,
            sport: tries.build_ports(&sport)?,
            dport: tries.build_ports(&dport)?,
        };
        let rules = ruleset.rules.iter().map(entry).collect();
        Ok(Self { roots, nodes: tries.nodes, rows: rows.rows, rules })
    }
}

/// One interval of an axis: it reaches from `start` to the next one's start.
struct Interval {
    start: u32,
    /// Index of the row that holds for it.
    row: u32,
}

/// Sweeps over an axis: wherever a rule begins or ends, a new interval begins. The first begins at
/// 0.
fn intervals<'a>(
    rules: impl Iterator<Item = &'a [(u32, u32)]>,
    rows: &mut Rows,
) -> Result<Vec<Interval>, Kind> {
    let mut edges: Vec<(u32, usize)> = Vec::new();
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
    known: HashMap<[u64; WORDS], u32>,
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
    /// Tries in which every path leads to the same row, by depth and row.
    constant: HashMap<(u32, u32), u32>,
}

impl Tries {
    /// The trie for `depth` more bytes of keys that begin with those of `start`, or the row if
    /// there are none.
    fn build(&mut self, intervals: &[Interval], start: u32, depth: u32) -> Result<u32, Kind> {
        // The interval that `start` lies in, and those that begin behind it in the same block.
        let at = intervals.partition_point(|interval| interval.start <= start) - 1;
        let last = start | u32::try_from((1_u64 << (8 * depth)) - 1).expect("four bytes at most");
        let end = intervals.partition_point(|interval| interval.start <= last);
        let here = &intervals[at..end];
        if let [Interval { row, .. }] = here {
            return self.constant(*row, depth);
        }
        let mut node = [0; 256];
        for (byte, next) in (0..).zip(&mut node) {
            *next = self.build(here, start | byte << (8 * (depth - 1)), depth - 1)?;
        }
        self.push(node)
    }

    fn constant(&mut self, row: u32, depth: u32) -> Result<u32, Kind> {
        if depth == 0 {
            return Ok(row);
        }
        if let Some(&at) = self.constant.get(&(depth, row)) {
            return Ok(at);
        }
        let next = self.constant(row, depth - 1)?;
        let at = self.push([next; 256])?;
        self.constant.insert((depth, row), at);
        Ok(at)
    }

    /// One trie for each `port_root`.
    fn build_ports(&mut self, intervals: &[Interval]) -> Result<[u32; 4], Kind> {
        let mut roots = [0; 4];
        for (number, root) in (0..).zip(&mut roots) {
            *root = self.build(intervals, number << 16, 2)?;
        }
        Ok(roots)
    }

    fn push(&mut self, node: Node) -> Result<u32, Kind> {
        if self.nodes.len() == MAX_NODES {
            return Err(Kind::TooComplex(MAX_NODES, "nodes of lookup table"));
        }
        self.nodes.push(node);
        Ok(index(self.nodes.len() - 1))
    }
}

/// Indices stay below 2^32: the texts that rulesets are made of are far shorter.
fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a ruleset has at most 256 KiB")
}

fn entry(rule: &Rule) -> RuleEntry {
    let ports = rule.matches.sport.is_some() || rule.matches.dport.is_some();
    let mut entry =
        RuleEntry { flags: if ports { flag::PORTS } else { 0 }, ..RuleEntry::default() };
    let (action, dnat) = match rule.action {
        Action::Accept => (RuleAction::Accept, None),
        Action::Drop => (RuleAction::Drop, None),
        Action::Dnat(address) => (RuleAction::Dnat, Some(address)),
        Action::Funnel { through, sport, dport, dnat } => {
            entry.protocol = through.number();
            entry.sport = sport.get();
            entry.dport = dport.get();
            (RuleAction::Funnel, dnat)
        }
        Action::Unfunnel { protocol, dnat } => {
            entry.protocol = protocol.number();
            (RuleAction::Unfunnel, dnat)
        }
    };
    entry.action = action as u8;
    if let Some(address) = dnat {
        entry.flags |= flag::DNAT;
        entry.dnat = address.to_bits();
    }
    entry
}

/// What `rule` matches on each axis.
pub(crate) fn rule_axes(rule: &Rule) -> RuleAxes {
    let Rule { matches, .. } = rule;
    // A packet has both ports or none.
    let with_ports = matches.sport.is_some() || matches.dport.is_some();
    [
        addresses(matches.saddr.as_ref()),
        addresses(matches.daddr.as_ref()),
        ports(matches.protocol, matches.sport.as_ref(), with_ports),
        ports(matches.protocol, matches.dport.as_ref(), with_ports),
    ]
}

fn addresses(value: Option<&Match<Cidr>>) -> Ranges {
    let all = (0, u32::MAX);
    match value {
        None => vec![all],
        Some(value) => ranges(value, all, |cidr| (cidr.first(), cidr.last())),
    }
}

fn ports(protocol: Protocol, value: Option<&Match<PortRange>>, with_ports: bool) -> Ranges {
    let port = |port| port_value(protocol, Some(port));
    let all = (port(0), port(u16::MAX));
    match value {
        None if with_ports => vec![all],
        // A packet without ports is matched too.
        None => vec![(port(0), port_value(protocol, None))],
        Some(value) => {
            ranges(value, all, |range| (port(range.first.get()), port(range.last.get())))
        }
    }
}

/// The place of a port on its axis. A packet without ports comes right behind the last port.
fn port_value(protocol: Protocol, port: Option<u16>) -> u32 {
    port_root(protocol.number(), port.is_none().into()) << 16 | u32::from(port.unwrap_or(0))
}

/// The values of a match, or with `!=` all else between the ends of `all`.
fn ranges<T>(value: &Match<T>, all: (u32, u32), range: impl Fn(&T) -> (u32, u32)) -> Ranges {
    let mut sorted: Ranges = value.values.iter().map(range).collect();
    sorted.sort_unstable();
    let mut merged: Ranges = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    if value.negated { complement(&merged, all) } else { merged }
}

fn complement(ranges: &[(u32, u32)], (first, last): (u32, u32)) -> Ranges {
    let mut rest = Vec::with_capacity(ranges.len() + 1);
    let mut next = Some(first);
    for &(start, end) in ranges {
        if let Some(next) = next.filter(|&next| next < start) {
            rest.push((next, start - 1));
        }
        next = end.checked_add(1).filter(|&next| next <= last);
    }
    rest.extend(next.map(|next| (next, last)));
    rest
}
