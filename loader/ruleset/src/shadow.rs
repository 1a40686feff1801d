//! Finds rules that can never match.
//!
//! A rule is the product of what it matches on four axes. It is shadowed if the earlier rules
//! together cover that product. The question is answered exactly, axis by axis, unless that takes
//! too long; then the rule gets the benefit of the doubt.

use abi::axis;

use crate::diagnostic::Kind;
use crate::tables::RuleAxes;

/// Steps spent on one ruleset, at the most. A thousand rules of which any two overlap stay below.
const BUDGET: usize = 4_000_000;

/// Numbers of the rules that can never match, and why.
pub(crate) fn find(rules: &[RuleAxes]) -> Vec<(usize, Kind)> {
    let mut budget = BUDGET;
    let mut found = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        if rule.iter().any(Vec::is_empty) {
            found.push((number, Kind::NeverMatches));
            continue;
        }
        budget = budget.saturating_sub(number);
        let earlier: Vec<_> =
            rules[..number].iter().filter(|earlier| overlap(earlier, rule)).collect();
        if covered(rule, 0, &earlier, &mut budget) == Some(true) {
            found.push((number, Kind::Shadowed));
        }
    }
    found
}

fn overlap(a: &RuleAxes, b: &RuleAxes) -> bool {
    // Ports differ most often.
    (0..axis::COUNT).rev().all(|axis| {
        a[axis].iter().any(|&(first, last)| {
            let at = b[axis].partition_point(|&(_, end)| end < first);
            b[axis].get(at).is_some_and(|&(start, _)| start <= last)
        })
    })
}

/// Whether `earlier` rules cover `rule` on this axis and those behind it. `None` if the budget ran
/// out before it was clear.
fn covered(
    rule: &RuleAxes,
    axis: usize,
    earlier: &[&RuleAxes],
    budget: &mut usize,
) -> Option<bool> {
    *budget = budget.checked_sub(1 + earlier.len())?;
    if earlier.is_empty() {
        return Some(false);
    }
    if axis == axis::COUNT {
        return Some(true);
    }
    for &(first, last) in &rule[axis] {
        // Between two cuts the same earlier rules hold.
        let mut cuts = vec![first];
        for &(start, end) in earlier.iter().flat_map(|earlier| &earlier[axis]) {
            cuts.extend(Some(start).filter(|&cut| first < cut && cut <= last));
            cuts.extend(end.checked_add(1).filter(|&cut| first < cut && cut <= last));
        }
        cuts.sort_unstable();
        cuts.dedup();
        for cut in cuts {
            let here: Vec<_> = earlier
                .iter()
                .copied()
                .filter(|earlier| {
                    earlier[axis].iter().any(|&(start, end)| start <= cut && cut <= end)
                })
                .collect();
            if !covered(rule, axis + 1, &here, budget)? {
                return Some(false);
            }
        }
    }
    Some(true)
}
