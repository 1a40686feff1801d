//! What a rule does, as the program reads it.

use std::net::IpAddr;

use abi::{RuleAction, RuleEntry, flag};

use crate::ast::{Action, InnerPorts, Match, Port, PortRange, Rule, TcpFlags};

/// The rule's entry in the `RULES` map.
pub(crate) fn entry(rule: &Rule) -> RuleEntry {
    let ports = rule.matches.sport.is_some() || rule.matches.dport.is_some();
    let mut entry = RuleEntry {
        flags: if ports { flag::PORTS } else { 0 },
        tcp_flags: TcpFlags::default().0,
        ..RuleEntry::default()
    };
    let action = match rule.action {
        Action::Accept => RuleAction::Accept,
        Action::Drop => RuleAction::Drop,
        Action::Dnat(_) => RuleAction::Dnat,
        Action::Funnel { through, sport, dport, flags, inner, dnat: _ } => {
            entry.protocol = through.number();
            entry.sport = sport.get();
            entry.dport = dport.get();
            entry.tcp_flags = flags.0;
            set_inner(&mut entry, inner);
            RuleAction::Funnel
        }
        Action::Unfunnel { protocol, inner, dnat: _ } => {
            entry.protocol = protocol.number();
            set_inner(&mut entry, inner);
            RuleAction::Unfunnel
        }
        Action::Translate { verb: _, protocol, sport, dport, dnat: _ } => {
            entry.protocol = protocol.number();
            entry.sport = shift(rule.matches.sport.as_ref(), sport);
            entry.dport = shift(rule.matches.dport.as_ref(), dport);
            RuleAction::Translate
        }
    };
    entry.action = action as u8;
    if let Some(address) = rule.action.dnat() {
        entry.flags |= flag::DNAT;
        entry.dnat = words(address);
    }
    entry
}

fn set_inner(entry: &mut RuleEntry, inner: InnerPorts) {
    entry.inner_sport = inner.sport.map_or(0, Port::get);
    entry.inner_dport = inner.dport.map_or(0, Port::get);
}

/// What is added, modulo 2^16, to a port of the range that is matched.
pub(crate) fn shift(matched: Option<&Match<PortRange>>, becomes: PortRange) -> u16 {
    let first = matched.and_then(Match::single).map_or(becomes.first, |range| range.first);
    becomes.first.get().wrapping_sub(first.get())
}

/// The 16 bytes of `address` in network byte order; of an IPv4 address the last four.
fn words(address: IpAddr) -> [u32; 4] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[12..].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    let (words, _) = bytes.as_chunks();
    [0, 1, 2, 3].map(|word| u32::from_ne_bytes(words[word]))
}
