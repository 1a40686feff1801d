//! Rules for ICMP errors that quote what a ruleset has sent.
//!
//! A router that can't forward a funnelled packet quotes it as it saw it. The sender's sockets know
//! only the packet as it was before, so the quote has to be undone. With its addresses and ports
//! exchanged it looks like an answer, and what undoes it is the rule that would undo a funnel with
//! those ports: the mirror of the one that made it.

use std::collections::HashSet;

use abi::{RuleEntry, flag};

use crate::ast::{Action, InnerPorts, Match, Matches, Port, PortRange, Rule, Ruleset, Verb};
use crate::axes::rule_axes;
use crate::entry::entry;
use crate::shadow::{Budget, contains};
use crate::{Compiled, Tables};

/// Steps spent on finding rules that are there already: some milliseconds. Behind that, rules are
/// there twice.
const BUDGET: usize = 1_000_000;

/// The rules that undo, in quotes, what `ruleset` does. They are for quotes with addresses and ports
/// exchanged, and say so in [`RuleEntry::flags`]. `other` is what the opposite hook has; what one of
/// its rules does already is left out.
///
/// `None` if there are none, or if they need larger tables than there may be.
pub fn quotes(ruleset: &Ruleset, other: Option<&Ruleset>) -> Option<Compiled> {
    let mut seen = HashSet::new();
    let mut rules: Vec<_> = ruleset.rules.iter().filter_map(mirror).collect();
    rules.retain(|rule| seen.insert(rule.clone()));
    leave_out(&mut rules, other.map_or(&[], |other| &other.rules));
    if rules.is_empty() {
        return None;
    }
    let axes: Vec<_> = rules.iter().map(rule_axes).collect();
    let ruleset = Ruleset { rules };
    let mut tables = Tables::build(&ruleset, &axes).ok()?;
    for entry in &mut tables.rules {
        entry.flags |= flag::QUOTES;
    }
    Some(Compiled { ruleset, tables, warnings: Vec::new() })
}

/// The rule that undoes `rule`. None undoes what can't be told from what is quoted.
fn mirror(rule: &Rule) -> Option<Rule> {
    let Rule { matches, action } = rule;
    let (protocol, sport, dport, action) = match *action {
        Action::Funnel { through, sport, dport, flags: _, inner, dnat: None } => {
            let inner = InnerPorts {
                sport: former(inner.dport, matches.dport.as_ref())?,
                dport: former(inner.sport, matches.sport.as_ref())?,
            };
            let action = Action::Unfunnel { protocol: matches.protocol, inner, dnat: None };
            (through, dport.into(), sport.into(), action)
        }
        Action::Translate { verb, protocol, sport, dport, dnat: None } => {
            let action = Action::Translate {
                verb: match verb {
                    Verb::Funnel => Verb::Unfunnel,
                    Verb::Unfunnel => Verb::Funnel,
                },
                protocol,
                sport: matches.dport.as_ref().and_then(Match::single)?,
                dport: matches.sport.as_ref().and_then(Match::single)?,
                dnat: None,
            };
            (protocol, dport, sport, action)
        }
        _ => return None,
    };
    let matches = Matches {
        family: matches.family,
        saddr: matches.daddr.clone(),
        daddr: matches.saddr.clone(),
        protocol,
        sport: Some(one(sport)),
        dport: Some(one(dport)),
    };
    Some(Rule { matches, action })
}

fn one(range: PortRange) -> Match<PortRange> {
    Match { negated: false, values: vec![range] }
}

/// The port to put back: none where `inner` set none. Nothing if it may have been one of many.
fn former(inner: Option<Port>, matched: Option<&Match<PortRange>>) -> Option<Option<Port>> {
    if inner.is_none() {
        return Some(None);
    }
    let range = matched.and_then(Match::single)?;
    (range.first == range.last).then_some(Some(range.first))
}

/// Removes what one rule of `other` does for all the same packets.
fn leave_out(rules: &mut Vec<Rule>, other: &[Rule]) {
    let effect = |rule: &Rule| RuleEntry { flags: entry(rule).flags & flag::DNAT, ..entry(rule) };
    let other: Vec<_> = other.iter().map(|rule| (effect(rule), rule_axes(rule))).collect();
    let mut budget = Budget(BUDGET);
    rules.retain(|rule| {
        let (done, axes) = (effect(rule), rule_axes(rule));
        !other.iter().any(|(effect, other)| {
            *effect == done && contains(other, &axes, &mut budget) == Some(true)
        })
    });
}

#[cfg(test)]
mod tests {
    use abi::flag;

    use super::quotes;
    use crate::parser::parse;
    use crate::{Compiled, Ruleset};

    fn rules(text: &str) -> Ruleset {
        parse(text).unwrap_or_else(|error| panic!("{error}")).ruleset
    }

    /// The canonical text of the rules for quotes; empty if there are none.
    #[track_caller]
    fn check(text: &str, other: Option<&str>, expect: &[&str]) -> Option<Compiled> {
        let quotes = quotes(&rules(text), other.map(rules).as_ref());
        let shown = quotes.as_ref().map(|all| all.ruleset.to_string()).unwrap_or_default();
        assert_eq!(shown.lines().collect::<Vec<_>>(), expect, "{text}");
        if let Some(quotes) = &quotes {
            assert_eq!(rules(&shown), quotes.ruleset);
            assert!(quotes.tables.rules.iter().all(|entry| entry.flags & flag::QUOTES != 0));
        }
        quotes
    }

    #[test]
    fn a_funnel_is_undone() {
        check(
            "ip saddr 10.0.0.1 daddr != 192.0.2.0/24 udp dport { 53, 2055 } sport 7 \
             actions funnel tcp dport 179 sport 540 flags ack",
            None,
            &["ip saddr != 192.0.2.0/24 daddr 10.0.0.1 tcp sport 179 dport 540 \
               actions unfunnel udp"],
        );
        check(
            "ip6 daddr ::1 tcp actions funnel udp dport 80 sport 540; tcp actions drop",
            None,
            &["ip6 saddr ::1 udp sport 80 dport 540 actions unfunnel tcp"],
        );
    }

    /// Where the rule tells which one it was.
    #[test]
    fn a_port_behind_the_header_is_put_back() {
        check(
            "tcp sport 9090 dport 1-9 actions funnel tcp sport 80 dport 540 inner sport 8080",
            None,
            &["tcp sport 540 dport 80 actions unfunnel tcp dport 9090"],
        );
        check(
            "udp sport 7 dport 9 actions funnel tcp sport 80 dport 540 inner sport 1 dport 2",
            None,
            &["tcp sport 540 dport 80 actions unfunnel udp sport 9 dport 7"],
        );
        for matched in ["tcp", "tcp sport 1-2", "tcp sport != 1", "tcp dport 1"] {
            let rule = format!("{matched} actions funnel tcp sport 80 dport 540 inner sport 8080");
            check(&rule, None, &[]);
        }
    }

    #[test]
    fn a_translation_is_undone() {
        check(
            "ip daddr 10.0.0.1 tcp dport 8080 sport 32768-60999 \
             actions funnel tcp dport 80 sport 1024-29255",
            None,
            &["ip saddr 10.0.0.1 tcp sport 80 dport 1024-29255 \
               actions unfunnel tcp sport 8080-8080 dport 32768-60999"],
        );
        // Back and forth is the rule itself.
        let rule = "ip saddr 10.0.0.1 udp sport 1-9 dport 80 \
                    actions unfunnel udp sport 11-19 dport 443";
        let there = quotes(&rules(rule), None).unwrap().ruleset;
        assert_eq!(quotes(&there, None).unwrap().ruleset, rules(rule));
    }

    #[test]
    fn what_is_not_undone() {
        check(
            "tcp dport 1 actions accept
             tcp dport 2 actions drop
             tcp dport 3 actions unfunnel tcp
             tcp dport 4 actions dnat 10.0.0.1
             tcp dport 5 actions funnel tcp dport 80 sport 540 dnat 10.0.0.1
             ip daddr 10.0.0.2 tcp dport 6 sport 1-9 actions funnel tcp dport 80 sport 1-9 dnat 10.0.0.1",
            None,
            &[],
        );
    }

    #[test]
    fn nothing_is_there_twice() {
        let egress = "tcp dport 443 actions funnel tcp dport 80 sport 540
                      tcp dport 444 actions funnel tcp dport 80 sport 540
                      udp dport 444 actions funnel tcp dport 80 sport 541";
        let tcp = "tcp sport 80 dport 540 actions unfunnel tcp";
        let udp = "tcp sport 80 dport 541 actions unfunnel udp";
        check(egress, None, &[tcp, udp]);
        check(egress, Some(udp), &[tcp]);
        check(egress, Some("tcp sport 80 dport 540-541 actions unfunnel tcp"), &[udp]);
        check(egress, Some(&format!("{tcp};{udp}")), &[]);
        // Only a part of it, something else, or more than that.
        check(egress, Some("ip tcp sport 80 dport 540 actions unfunnel tcp"), &[tcp, udp]);
        check(egress, Some("tcp sport 80 dport 540 actions unfunnel tcp dport 9"), &[tcp, udp]);
        check(egress, Some("tcp sport 80 dport 540 actions unfunnel tcp dnat ::1"), &[tcp, udp]);
        check(egress, Some("tcp sport 80 dport 540 actions accept"), &[tcp, udp]);
        // In place the same shift is the same effect, whichever word it is written with.
        let shift = "tcp dport 8080 sport 11-19 actions funnel tcp dport 80 sport 1-9";
        let undone = "tcp sport 80 dport 1-9 actions funnel tcp sport 8080-8080 dport 11-19";
        check(shift, Some(undone), &[]);
    }

    /// A packet as the quote has it, with its addresses and ports exchanged.
    #[test]
    fn a_quote_is_found() {
        let quotes = check(
            "ip6 daddr ::1 udp dport 2055 actions funnel tcp dport 179 sport 540",
            None,
            &["ip6 saddr ::1 tcp sport 179 dport 540 actions unfunnel udp"],
        );
        let key = abi::Key {
            family: 1,
            saddr: &std::net::Ipv6Addr::LOCALHOST.octets(),
            daddr: &[7; 16],
            port_root: abi::port_root(abi::wire::TCP, 0),
            sport: 179_u16.to_be_bytes(),
            dport: 540_u16.to_be_bytes(),
        };
        let tables = quotes.unwrap().tables;
        assert_eq!(abi::find_rule(&tables, &key), Some(0));
        assert_eq!(
            abi::find_rule(&tables, &abi::Key { dport: 541_u16.to_be_bytes(), ..key }),
            None
        );
        assert_eq!(abi::find_rule(&tables, &abi::Key { family: 0, ..key }), None);
    }
}
