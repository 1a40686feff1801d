//! Ports translated in place have to stay one to one over the whole ruleset.
//!
//! One rule is a bijection by itself. Two rules for the same packets are not if they shift ports by
//! different numbers and what comes out of them overlaps: two flows would become one, and the
//! receiver could not tell them apart.

use crate::ast::{Action, Cidr, Match, Rule, Verb};
use crate::axes::{DADDR, DPORT, RuleAxes, SPORT, addresses, intersection, port_values};
use crate::diagnostic::Kind;
use crate::entry::entry;
use crate::shadow::{Budget, overlap, shadowed};

/// Steps spent on one ruleset, at the most: a fraction of a second. 4,096 rules that differ in both
/// ports need half of them.
const BUDGET: usize = 32_000_000;

/// A rule that translates in place.
struct Translation<'a> {
    /// Number of the rule.
    number: usize,
    /// What it matches.
    axes: &'a RuleAxes,
    /// What comes out.
    image: RuleAxes,
    /// What is added to either port.
    shift: (u16, u16),
}

/// The first two rules, if any, that make one flow of two.
///
/// What earlier rules take from a rule does not count. A pair is let off only if they take all of
/// what would meet from one of the two.
///
/// # Errors
///
/// It takes too many steps to tell.
pub(crate) fn collision(rules: &[Rule], axes: &[RuleAxes]) -> Result<Option<(usize, usize)>, Kind> {
    let translations: Vec<_> = rules
        .iter()
        .zip(axes)
        .enumerate()
        .filter_map(|(number, (rule, axes))| Translation::of(number, rule, axes))
        .collect();
    let mut budget = Budget(BUDGET);
    for (at, second) in translations.iter().enumerate() {
        for first in &translations[..at] {
            match collide(first, second, axes, &mut budget) {
                Some(false) => {}
                Some(true) => return Ok(Some((first.number, second.number))),
                None => {
                    let what = "steps to tell whether ports in place stay one to one";
                    return Err(Kind::TooComplex(BUDGET, what));
                }
            }
        }
    }
    Ok(None)
}

impl<'a> Translation<'a> {
    fn of(number: usize, rule: &Rule, axes: &'a RuleAxes) -> Option<Self> {
        let Action::Translate { verb: _, protocol, sport, dport, dnat } = rule.action else {
            return None;
        };
        let mut image = axes.clone();
        image[SPORT] = vec![port_values(protocol, sport)];
        image[DPORT] = vec![port_values(protocol, dport)];
        if let Some(address) = dnat {
            let values = vec![Cidr::from(address)];
            image[DADDR] = addresses(Some(&Match { negated: false, values }));
        }
        let entry = entry(rule);
        Some(Self { number, axes, image, shift: (entry.sport, entry.dport) })
    }

    /// What becomes `part` of the image.
    fn preimage(&self, part: &RuleAxes) -> RuleAxes {
        let mut preimage = part.clone();
        for axis in [SPORT, DPORT] {
            // One range each, and as long as its image.
            let (from, to) = (self.axes[axis][0].0, self.image[axis][0].0);
            for (first, last) in &mut preimage[axis] {
                (*first, *last) = (*first - to + from, *last - to + from);
            }
        }
        if self.image[DADDR] != self.axes[DADDR] {
            preimage[DADDR].clone_from(&self.axes[DADDR]);
        }
        preimage
    }
}

/// Whether two flows become one. `None` if the budget ran out before it was clear.
fn collide(
    first: &Translation<'_>,
    second: &Translation<'_>,
    rules: &[RuleAxes],
    budget: &mut Budget,
) -> Option<bool> {
    if first.shift == second.shift || !overlap(&first.image, &second.image, budget)? {
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

/// Whether `rule` undoes a translation for packets from anywhere. Who is outside the funnel, and
/// has a source port in its range by chance, would reach another port than the one it asked for.
pub(crate) fn takes_strangers(rule: &Rule) -> bool {
    matches!(rule.action, Action::Translate { verb: Verb::Unfunnel, .. })
        && rule.matches.saddr.is_none()
}
