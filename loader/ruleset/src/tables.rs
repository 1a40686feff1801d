//! Rules to tables: what the BPF maps will hold.
//!
//! `abi::find_rule` tells how a packet is looked up in them.

use std::collections::HashMap;

use abi::{
    Axis, Interval, MAX_BIT_WORDS, MAX_INTERVALS_PER_AXIS, NO_PORT, RuleAction, RuleEntry, axis,
    bit, flag, port_key,
};

use crate::ast::{Action, Cidr, Match, PortRange, Protocol, Rule, Ruleset};
use crate::diagnostic::Kind;

/// Values of one axis, as sorted, disjoint ranges that include both ends.
pub(crate) type Ranges = Vec<(u32, u32)>;

/// What a rule matches: the product of its four axes.
pub(crate) type RuleAxes = [Ranges; axis::COUNT];

/// The compiled ruleset, in the layout of crate `abi`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Where each axis lies in `intervals`.
    pub axes: [Axis; axis::COUNT],
    /// The `INTERVALS` map.
    pub intervals: Vec<Interval>,
    /// The `BITS` map.
    pub bits: Vec<u64>,
    /// The `RULES` map.
    pub rules: Vec<RuleEntry>,
}

impl abi::Tables for Tables {
    fn axis(&self, axis: usize) -> Axis {
        self.axes[axis]
    }

    fn interval(&self, index: u32) -> Option<Interval> {
        self.intervals.get(index as usize).copied()
    }

    fn bits(&self, index: u32) -> Option<u64> {
        self.bits.get(index as usize).copied()
    }
}

impl Tables {
    pub(crate) fn build(ruleset: &Ruleset, rules: &[RuleAxes]) -> Result<Self, Kind> {
        let mut tables =
            Self { rules: ruleset.rules.iter().map(entry).collect(), ..Self::default() };
        let mut rows = Rows::new(rules.len());
        for axis in 0..axis::COUNT {
            let first = tables.intervals.len();
            tables.add_axis(rules.iter().map(|rule| rule[axis].as_slice()), &mut rows)?;
            let len = tables.intervals.len() - first;
            if len > MAX_INTERVALS_PER_AXIS {
                return Err(Kind::TooComplex(MAX_INTERVALS_PER_AXIS, "addresses or ports"));
            }
            tables.axes[axis] = Axis { first: index(first), len: index(len) };
        }
        tables.bits = rows.bits;
        Ok(tables)
    }

    /// Sweeps over one axis: wherever a rule begins or ends, a new interval begins.
    fn add_axis<'a>(
        &mut self,
        rules: impl Iterator<Item = &'a [(u32, u32)]>,
        rows: &mut Rows,
    ) -> Result<(), Kind> {
        let mut edges: Vec<(u32, usize)> = Vec::new();
        for (rule, ranges) in rules.enumerate() {
            for &(first, last) in ranges {
                edges.push((first, rule));
                // Behind the axis' last value nothing begins.
                edges.extend(last.checked_add(1).map(|next| (next, rule)));
            }
        }
        edges.sort_unstable();

        let mut current = vec![0; rows.words];
        let mut start = 0;
        let mut edges = edges.into_iter().peekable();
        loop {
            // Ranges of a rule don't touch, so each edge turns its bit.
            while let Some((_, rule)) = edges.next_if(|&(at, _)| at == start) {
                current[rule / 64] ^= bit(index(rule));
            }
            let row = rows.insert(&current)?;
            self.intervals.push(Interval { start, row });
            match edges.peek() {
                Some(&(next, _)) => start = next,
                None => return Ok(()),
            }
        }
    }
}

/// The `BITS` map while it grows. Equal rows are kept once.
struct Rows {
    words: usize,
    bits: Vec<u64>,
    known: HashMap<Box<[u64]>, u32>,
}

impl Rows {
    fn new(rules: usize) -> Self {
        Self { words: rules.div_ceil(64), bits: Vec::new(), known: HashMap::new() }
    }

    fn insert(&mut self, row: &[u64]) -> Result<u32, Kind> {
        if let Some(&at) = self.known.get(row) {
            return Ok(at);
        }
        let at = index(self.bits.len());
        let summary = (0..)
            .zip(row)
            .filter(|&(_, &word)| word != 0)
            .fold(0, |summary, (number, _)| summary | bit(number));
        self.bits.push(summary);
        self.bits.extend_from_slice(row);
        if self.bits.len() > MAX_BIT_WORDS {
            return Err(Kind::TooComplex(MAX_BIT_WORDS, "words of lookup table"));
        }
        self.known.insert(row.into(), at);
        Ok(at)
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
    [
        addresses(matches.saddr.as_ref()),
        addresses(matches.daddr.as_ref()),
        ports(matches.protocol, matches.sport.as_ref()),
        ports(matches.protocol, matches.dport.as_ref()),
    ]
}

fn addresses(value: Option<&Match<Cidr>>) -> Ranges {
    let all = (0, u32::MAX);
    match value {
        None => vec![all],
        Some(value) => ranges(value, all, |cidr| (cidr.first(), cidr.last())),
    }
}

fn ports(protocol: Protocol, value: Option<&Match<PortRange>>) -> Ranges {
    let key = |port: u32| port_key(protocol.number(), port);
    match value {
        // A packet without ports is matched too.
        None => vec![(key(0), key(NO_PORT))],
        Some(value) => ranges(value, (key(0), key(u16::MAX.into())), |range| {
            (key(range.first.get().into()), key(range.last.get().into()))
        }),
    }
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
