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
        let (sport, dport) = self
            .ports
            .map_or((abi::NO_PORT, abi::NO_PORT), |(sport, dport)| (sport.into(), dport.into()));
        let mut key = [0; abi::axis::COUNT];
        key[abi::axis::SADDR] = self.saddr.to_bits();
        key[abi::axis::DADDR] = self.daddr.to_bits();
        key[abi::axis::SPORT] = abi::port_key(self.protocol.number(), sport);
        key[abi::axis::DPORT] = abi::port_key(self.protocol.number(), dport);
        key
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
