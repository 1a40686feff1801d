//! Finds rules that can never match.
//!
//! A rule is the product of what it matches on each axis. It is shadowed if the earlier rules
//! together cover that product, in every family that it holds for. The question is answered
//! exactly, axis by axis, unless that takes too long; then the rule gets the benefit of the doubt.

use std::collections::BTreeSet;

use crate::axes::{AXES, DPORT, Ranges, RuleAxes};
use crate::diagnostic::Kind;

/// Steps spent on one ruleset, at the most: a fraction of a second. 4,096 rules for as many ports
/// need half of them.
pub(crate) const BUDGET: usize = 16_000_000;

/// Numbers of the rules that can never match, and why. Their text has `len` bytes.
pub(crate) fn find(rules: &[RuleAxes], len: usize) -> Vec<(usize, Kind)> {
    find_within(rules, &mut Budget::new(BUDGET, len))
}

fn find_within(rules: &[RuleAxes], budget: &mut Budget) -> Vec<(usize, Kind)> {
    // Most rules differ in their destination port. Side by side, these are looked through fast.
    let ends: Vec<_> = rules.iter().map(|rule| ends(&rule[DPORT])).collect();
    let mut found = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        if rule.iter().any(Vec::is_empty) {
            found.push((number, Kind::NeverMatches));
            continue;
        }
        let (first, last) = ends[number];
        let near = ends[..number].iter().zip(rules);
        let near = near.filter(|((start, end), _)| *start <= last && first <= *end);
        let near = near.map(|(_, rule)| rule);
        if budget.spend(number).and_then(|()| shadowed(rule, near, budget)) == Some(true) {
            found.push((number, Kind::Shadowed));
        }
    }
    found
}

/// The lowest and the highest value; nothing lies between those of no values.
pub(crate) fn ends(ranges: &Ranges) -> (u128, u128) {
    match (ranges.first(), ranges.last()) {
        (Some(&(first, _)), Some(&(_, last))) => (first, last),
        _ => (u128::MAX, 0),
    }
}

/// Steps that are left. Whatever the text can make longer is paid for here, so that no ruleset
/// keeps the webhook busy.
pub(crate) struct Budget(pub(crate) usize);

impl Budget {
    /// For a ruleset of `len` bytes: `most` at the most, and far less for a short one. A step takes some
    /// 25 ns.
    pub(crate) fn new(most: usize, len: usize) -> Self {
        Self(most.min(len * len))
    }

    /// `None` if there are not as many left.
    pub(crate) fn spend(&mut self, steps: usize) -> Option<()> {
        self.0 = self.0.checked_sub(steps)?;
        Some(())
    }
}

/// Whether `earlier` rules take all that `rule` matches. `None` if the budget ran out before it was
/// clear.
pub(crate) fn shadowed<'a>(
    rule: &RuleAxes,
    earlier: impl IntoIterator<Item = &'a RuleAxes>,
    budget: &mut Budget,
) -> Option<bool> {
    let mut near = Vec::new();
    for earlier in earlier {
        if overlap(earlier, rule, budget)? {
            if contains(earlier, rule, budget)? {
                return Some(true);
            }
            near.push(earlier);
        }
    }
    covered(rule, 0, &near, budget)
}

/// Whether there is something that both match.
pub(crate) fn overlap(a: &RuleAxes, b: &RuleAxes, budget: &mut Budget) -> Option<bool> {
    // Ports differ most often.
    for axis in (0..AXES).rev() {
        let (few, many) = if a[axis].len() < b[axis].len() { (a, b) } else { (b, a) };
        budget.spend(few[axis].len())?;
        let meets = few[axis].iter().any(|&(first, last)| {
            let at = many[axis].partition_point(|&(_, end)| end < first);
            many[axis].get(at).is_some_and(|&(start, _)| start <= last)
        });
        if !meets {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether `a` alone takes all of `b`, as it mostly is where a rule is shadowed.
pub(crate) fn contains(a: &RuleAxes, b: &RuleAxes, budget: &mut Budget) -> Option<bool> {
    for axis in (0..AXES).rev() {
        budget.spend(b[axis].len())?;
        let within = b[axis].iter().all(|&(first, last)| {
            let at = a[axis].partition_point(|&(_, end)| end < first);
            a[axis].get(at).is_some_and(|&(start, end)| start <= first && last <= end)
        });
        if !within {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether `earlier` rules cover `rule` on this axis and those behind it.
fn covered(
    rule: &RuleAxes,
    axis: usize,
    earlier: &[&RuleAxes],
    budget: &mut Budget,
) -> Option<bool> {
    if earlier.is_empty() {
        return Some(false);
    }
    if axis == AXES {
        return Some(true);
    }
    for &(first, last) in &rule[axis] {
        let mut edges: Vec<(u128, usize)> = Vec::new();
        for (number, earlier) in earlier.iter().enumerate() {
            let from = earlier[axis].partition_point(|&(_, end)| end < first);
            for &(start, end) in earlier[axis][from..].iter().take_while(|range| range.0 <= last) {
                edges.push((start.max(first), number));
                edges.extend(end.checked_add(1).filter(|&n| n <= last).map(|n| (n, number)));
            }
        }
        budget.spend(earlier.len() + edges.len())?;
        edges.sort_unstable();

        // Between two edges the same earlier rules hold.
        let mut here = BTreeSet::new();
        let mut edges = edges.into_iter().peekable();
        let mut at = first;
        loop {
            // Ranges of a rule don't touch, so each edge begins one or ends one.
            while let Some((_, number)) = edges.next_if(|edge| edge.0 == at) {
                if !here.remove(&number) {
                    here.insert(number);
                }
            }
            let covered = if axis + 1 == AXES {
                !here.is_empty()
            } else {
                budget.spend(here.len())?;
                let here: Vec<_> = here.iter().map(|&number| earlier[number]).collect();
                covered(rule, axis + 1, &here, budget)?
            };
            if !covered {
                return Some(false);
            }
            match edges.peek() {
                Some(&(next, _)) => at = next,
                None => break,
            }
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::{BUDGET, Budget, find_within};
    use crate::axes::{RuleAxes, rule_axes};
    use crate::diagnostic::Kind;
    use crate::parser::parse;

    fn axes(text: &str) -> Vec<RuleAxes> {
        parse(text).unwrap().ruleset.rules.iter().map(rule_axes).collect()
    }

    /// Numbers of the rules found, and the steps that it took.
    fn steps(text: &str) -> (Vec<usize>, usize) {
        let mut budget = Budget(BUDGET);
        let found = find_within(&axes(text), &mut budget);
        (found.into_iter().map(|(number, _)| number).collect(), BUDGET - budget.0)
    }

    fn lines(n: usize, line: impl Fn(usize) -> String) -> String {
        (1..=n).map(|i| line(i) + "\n").collect()
    }

    #[test]
    fn the_largest_ruleset_stays_in_the_budget() {
        let mut text = lines(4095, |i| format!("tcp dport {i} actions drop"));
        text += "tcp dport 4000-4095 actions drop";
        let (found, steps) = steps(&text);
        assert_eq!(found, [4095]);
        assert!((4096 * 4095 / 2..BUDGET * 3 / 5).contains(&steps), "{steps} steps");
    }

    #[test]
    fn a_thousand_rules_of_which_any_two_overlap_stay_in_the_budget() {
        let mut text = lines(1000, |i| format!("tcp dport 1000-{} actions drop", 1000 + i));
        text += "tcp dport 1500-2000 actions drop";
        let (found, steps) = steps(&text);
        assert_eq!(found, [1000]);
        assert!(steps < BUDGET * 3 / 4, "{steps} steps");
    }

    #[test]
    fn without_budget_a_rule_gets_the_benefit_of_the_doubt() {
        let rules =
            axes("tcp actions drop; tcp actions drop; ip saddr != 0.0.0.0/0 tcp actions drop");
        let found = find_within(&rules, &mut Budget(0));
        assert_eq!(found, [(2, Kind::NeverMatches)], "what needs no steps is still found");
        let found = find_within(&rules, &mut Budget(1000));
        assert_eq!(found, [(1, Kind::Shadowed), (2, Kind::NeverMatches)]);
    }

    #[test]
    fn both_families_have_to_be_covered() {
        let four = "ip daddr { 0.0.0.0/1, 128.0.0.0/1 } tcp actions drop";
        let six = "ip6 tcp actions drop";
        let found = |rules: &[&str]| steps(&rules.join(";")).0;
        assert_eq!(found(&[four, "tcp actions drop"]), [0; 0]);
        assert_eq!(found(&[four, six, "tcp actions drop"]), [2]);
        assert_eq!(found(&[four, "tcp actions dnat 10.0.0.1", "tcp actions dnat ::1"]), [1]);
        assert_eq!(found(&["tcp actions drop", four, six]), [1, 2]);
    }

    #[test]
    fn a_second_family_costs_little_where_no_rule_names_one() {
        let ruleset = |family: &str| {
            steps(&lines(500, |i| format!("{family}tcp dport 1000-{} actions drop", 1000 + i))).1
        };
        assert!(ruleset("") < ruleset("ip ") * 11 / 10);
    }

    /// A few lines about many cells, of which the last one is free.
    #[test]
    fn a_short_text_is_cheap_however_hard_it_is() {
        let addresses = |first: u8| -> String {
            (0..12).map(|n| format!("{}.1.1.1,", first + 2 * n)).collect()
        };
        let ports: String = (1..=30).map(|n| format!("{},", 2 * n)).collect();
        let text = format!(
            "ip saddr 0.0.0.0/1 tcp dport 1-9 actions drop;\
             ip saddr 0.0.0.0/1 tcp dport 10-99 actions drop;\
             ip saddr {{{}200.1.1.1}} daddr {{{}}} tcp sport {{{ports}}} dport {{{ports}}} actions drop",
            addresses(1),
            addresses(1),
        );
        let (found, needed) = steps(&text);
        assert_eq!(found, [0; 0]);
        let limit = text.len() * text.len();
        assert!(text.len() < 600 && needed > limit, "{needed} steps, {limit} allowed");
        assert_eq!(super::find(&axes(&text), text.len()).len(), 0);
    }

    /// One rule has thousands of values, and rules behind it have to be held against each of them.
    #[test]
    fn long_sets_are_paid_for() {
        let odd = lines(25_000, |i| format!("{},", 2 * i - 1)).replace('\n', "");
        let mut text = format!("tcp dport {{ {odd} }} actions drop\n");
        text += &lines(1000, |i| format!("tcp dport 1-50000 sport {i} actions drop"));
        let (found, steps) = steps(&text);
        assert_eq!(found, [0; 0]);
        assert!(steps > 1_000_000, "each of the thousand looks at many: {steps} steps");
    }
}
