//! First match, by asking one rule after the other.

use std::net::Ipv4Addr;

use ruleset::ast::{Match, PortRange, Protocol, Rule, Ruleset};

/// What a rule can see of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Source address.
    pub saddr: Ipv4Addr,
    /// Destination address.
    pub daddr: Ipv4Addr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Source and destination port; none in a fragment that is not the first.
    pub ports: Option<(u16, u16)>,
}

impl Seen {
    /// What the tables are asked with.
    pub fn key(&self) -> abi::Key {
        let (sport, dport) = self.ports.unwrap_or((0, 0));
        abi::Key {
            saddr: self.saddr.to_bits(),
            daddr: self.daddr.to_bits(),
            port_root: abi::port_root(self.protocol.number(), self.ports.is_none().into()),
            sport,
            dport,
        }
    }
}

/// Number of the first rule that matches.
pub fn first_match(ruleset: &Ruleset, seen: &Seen) -> Option<usize> {
    ruleset.rules.iter().position(|rule| matches(rule, seen))
}

fn matches(rule: &Rule, seen: &Seen) -> bool {
    let address = |value: &Option<Match<ruleset::ast::Cidr>>, address: Ipv4Addr| match value {
        None => true,
        Some(Match { negated, values }) => {
            let bits = address.to_bits();
            values.iter().any(|cidr| cidr.first() <= bits && bits <= cidr.last()) != *negated
        }
    };
    let port = |value: &Option<Match<PortRange>>, port: Option<u16>| match (value, port) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(Match { negated, values }), Some(port)) => {
            values.iter().any(|r| r.first.get() <= port && port <= r.last.get()) != *negated
        }
    };
    let (sport, dport) = seen.ports.unzip();
    rule.matches.protocol == seen.protocol
        && address(&rule.matches.saddr, seen.saddr)
        && address(&rule.matches.daddr, seen.daddr)
        && port(&rule.matches.sport, sport)
        && port(&rule.matches.dport, dport)
}
