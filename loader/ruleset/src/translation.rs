//! Ports translated in place have to stay one to one over the whole ruleset.
//!
//! One rule is a bijection by itself: it shifts both ports, and with `dnat` its one destination
//! address as well. Two rules for the same packets are not if they shift by different numbers and
//! what comes out of them overlaps: two flows would become one, and the receiver could not tell them
//! apart.

use std::cmp::Ordering;

use crate::ast::{Action, Cidr, Match, Matches, PortRange, Rule, Verb};
use crate::axes::{
    AXES, DADDR, DPORT, EVERYWHERE, RuleAxes, SADDR, SPORT, intersection, port_values,
};
use crate::diagnostic::Kind;
use crate::shadow::{Budget, ends, overlap, shadowed};

/// Steps spent on one ruleset, at the most: a tenth of a second. Only pairs that [`Translation::near`]
/// does not tell apart need any.
const BUDGET: usize = 4_000_000;

/// The axes that a rule in place may shift packets on.
const SHIFTED: [usize; 3] = [DADDR, SPORT, DPORT];

/// A rule that translates in place.
struct Translation {
    /// Number of the rule.
    number: usize,
    /// What comes out.
    image: RuleAxes,
    /// The lowest and the highest of it on each axis.
    bounds: [(u128, u128); AXES],
    /// What is added on each of [`SHIFTED`].
    by: [u128; 3],
}

/// The first two rules, if any, that make one flow of two.
///
/// What earlier rules take from a rule does not count. A pair is let off only if they take all of
/// what would meet from one of the two. Their text has `len` bytes.
///
/// # Errors
///
/// It takes too many steps to tell.
pub(crate) fn collision(
    rules: &[Rule],
    axes: &[RuleAxes],
    len: usize,
) -> Result<Option<(usize, usize)>, Kind> {
    let translations: Vec<_> = rules
        .iter()
        .zip(axes)
        .enumerate()
        .filter_map(|(number, (rule, axes))| Translation::of(number, rule, axes))
        .collect();
    let mut budget = Budget::new(BUDGET, len);
    let steps = budget.0;
    for (at, second) in translations.iter().enumerate() {
        for first in translations[..at].iter().filter(|first| first.near(second)) {
            match collide(first, second, axes, &mut budget) {
                Some(false) => {}
                Some(true) => return Ok(Some((first.number, second.number))),
                None => {
                    let what = "steps to tell whether ports in place stay one to one";
                    return Err(Kind::TooComplex(steps, what));
                }
            }
        }
    }
    Ok(None)
}

impl Translation {
    /// Nothing if the rule does something else, or nothing at all.
    fn of(number: usize, rule: &Rule, axes: &RuleAxes) -> Option<Self> {
        let Action::Translate { verb: _, protocol, sport, dport, dnat } = rule.action else {
            return None;
        };
        if axes.iter().any(Vec::is_empty) {
            return None;
        }
        let mut image = axes.clone();
        image[SPORT] = vec![port_values(protocol, sport)];
        image[DPORT] = vec![port_values(protocol, dport)];
        if let Some(address) = dnat {
            // The rule matches one address, too.
            image[DADDR] = vec![Cidr::from(address).places()];
        }
        let by = SHIFTED.map(|axis| image[axis][0].0.wrapping_sub(axes[axis][0].0));
        let bounds = std::array::from_fn(|axis| ends(&image[axis]));
        Some(Self { number, image, bounds, by })
    }

    /// Whether what comes out of both may overlap. Eight million pairs, as 4,096 rules have, are
    /// asked within milliseconds.
    fn near(&self, other: &Self) -> bool {
        let overlap = |(a, b): (&(u128, u128), &(u128, u128))| a.0 <= b.1 && b.0 <= a.1;
        self.bounds.iter().zip(&other.bounds).rev().all(overlap)
    }

    /// What becomes `part` of the image.
    fn preimage(&self, part: &RuleAxes) -> RuleAxes {
        let mut preimage = part.clone();
        for (axis, by) in SHIFTED.into_iter().zip(self.by) {
            for (first, last) in &mut preimage[axis] {
                (*first, *last) = (first.wrapping_sub(by), last.wrapping_sub(by));
            }
        }
        preimage
    }
}

/// Whether two flows become one. `None` if the budget ran out before it was clear.
fn collide(
    first: &Translation,
    second: &Translation,
    rules: &[RuleAxes],
    budget: &mut Budget,
) -> Option<bool> {
    if first.by == second.by || !overlap(&first.image, &second.image, budget)? {
        return Some(false);
    }
    let both: RuleAxes =
        std::array::from_fn(|axis| intersection(&first.image[axis], &second.image[axis]));
    for translation in [first, second] {
        let part = translation.preimage(&both);
        if shadowed(&part, &rules[..translation.number], budget)? {
            return Some(false);
        }
    }
    Some(true)
}

/// Rules in place that do what they say, and still can't be meant.
pub(crate) fn doubtful(rules: &[Rule], axes: &[RuleAxes]) -> Vec<(usize, Kind)> {
    let mut found = Vec::new();
    for (number, (rule, axes)) in rules.iter().zip(axes).enumerate() {
        if takes_strangers(rule, axes) {
            found.push((number, Kind::Strangers));
        }
        if let Some(name) = own_ports(rule) {
            found.push((number, Kind::OwnPorts(name)));
        }
    }
    found
}

/// Whether `rule` undoes a translation for packets from anywhere. Who is outside the funnel, and
/// has a source port in its range by chance, would reach another port than the one it asked for.
fn takes_strangers(rule: &Rule, axes: &RuleAxes) -> bool {
    matches!(rule.action, Action::Translate { verb: Verb::Unfunnel, .. })
        && axes[SADDR] == [EVERYWHERE]
}

/// The port, if any, that `rule` takes from the range that the clients choose theirs from, and puts
/// into that range again, while the other port changes. Who of the same clients uses the other port
/// directly has such ports as well.
fn own_ports(rule: &Rule) -> Option<&'static str> {
    let Action::Translate { sport, dport, .. } = rule.action else { return None };
    let Matches { sport: from_sport, dport: from_dport, .. } = &rule.matches;
    let (from_sport, from_dport) = (single(from_sport)?, single(from_dport)?);
    // The wider range is the one that clients choose from.
    let (name, (from, to), changes) = match sport.size().cmp(&dport.size()) {
        Ordering::Greater => ("sport", (from_sport, sport), from_dport != dport),
        Ordering::Less => ("dport", (from_dport, dport), from_sport != sport),
        Ordering::Equal => return None,
    };
    let overlap = from.first <= to.last && to.first <= from.last;
    (changes && overlap).then_some(name)
}

fn single(matched: &Option<Match<PortRange>>) -> Option<PortRange> {
    matched.as_ref().and_then(Match::single)
}
