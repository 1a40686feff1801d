//! What a rule matches, in numbers: the product of ranges on five axes.

use abi::{Family, port_root};

use crate::ast::{Cidr, Match, PortRange, Protocol, Rule};

/// Values of one axis, as sorted, disjoint ranges that include both ends and don't touch.
pub(crate) type Ranges = Vec<(u128, u128)>;

/// What a rule matches: the product of its axes.
pub(crate) type RuleAxes = [Ranges; AXES];

/// Axes that a packet has a value on. The first to look at comes last: ports differ most often.
pub(crate) const AXES: usize = 5;
/// The axis of the family's number.
pub(crate) const FAMILY: usize = 0;
/// The axis of the source address' place, see [`place`](crate::ast::place).
pub(crate) const SADDR: usize = 1;
/// The axis of the destination address' place.
pub(crate) const DADDR: usize = 2;
/// The axis of the source port and its protocol, see [`port_value`].
pub(crate) const SPORT: usize = 3;
/// The axis of the destination port and its protocol.
pub(crate) const DPORT: usize = 4;

/// All that a rule without a match of addresses takes.
pub(crate) const EVERYWHERE: (u128, u128) = (0, u128::MAX);

/// What `rule` matches on each axis.
pub(crate) fn rule_axes(rule: &Rule) -> RuleAxes {
    let Rule { matches, .. } = rule;
    // A packet has both ports or none.
    let with_ports = matches.sport.is_some() || matches.dport.is_some();
    [
        family(rule.family()),
        addresses(matches.saddr.as_ref()),
        addresses(matches.daddr.as_ref()),
        ports(matches.protocol, matches.sport.as_ref(), with_ports),
        ports(matches.protocol, matches.dport.as_ref(), with_ports),
    ]
}

fn family(family: Option<Family>) -> Ranges {
    let number = |family| family as u128;
    match family {
        None => vec![(number(Family::Ip), number(Family::Ip6))],
        Some(family) => vec![(number(family), number(family))],
    }
}

/// The places of the addresses that `value` holds for.
pub(crate) fn addresses(value: Option<&Match<Cidr>>) -> Ranges {
    match value {
        None => vec![EVERYWHERE],
        Some(value) => ranges(value, EVERYWHERE, |cidr| cidr.places()),
    }
}

fn ports(protocol: Protocol, value: Option<&Match<PortRange>>, with_ports: bool) -> Ranges {
    let all = (port_value(protocol, Some(0)), port_value(protocol, Some(u16::MAX)));
    match value {
        None if with_ports => vec![all],
        // A packet without ports is matched too.
        None => vec![(all.0, port_value(protocol, None))],
        Some(value) => ranges(value, all, |&range| port_values(protocol, range)),
    }
}

/// The places of the first and the last port on their axis.
pub(crate) fn port_values(protocol: Protocol, range: PortRange) -> (u128, u128) {
    let value = |port| port_value(protocol, Some(port));
    (value(range.first.get()), value(range.last.get()))
}

/// The place of a port on its axis. A packet without ports comes right behind the last port.
fn port_value(protocol: Protocol, port: Option<u16>) -> u128 {
    let root = port_root(protocol.number(), port.is_none().into());
    (root << u16::BITS | u32::from(port.unwrap_or(0))).into()
}

/// The values of a match, or with `!=` all else between the ends of `all`.
fn ranges<T>(value: &Match<T>, all: (u128, u128), range: impl Fn(&T) -> (u128, u128)) -> Ranges {
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

fn complement(ranges: &[(u128, u128)], (first, last): (u128, u128)) -> Ranges {
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

/// The values that both have.
pub(crate) fn intersection(a: &[(u128, u128)], b: &[(u128, u128)]) -> Ranges {
    let mut both = Vec::new();
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(&&(start, end)), Some(&&(first, last))) = (a.peek(), b.peek()) {
        if start.max(first) <= end.min(last) {
            both.push((start.max(first), end.min(last)));
        }
        // What ends first meets nothing more.
        if end < last {
            a.next()
        } else {
            b.next()
        };
    }
    both
}
