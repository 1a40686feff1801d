//! First match, by asking one rule after the other.

use std::net::IpAddr;

use ruleset::ast::{Action, Cidr, Family, Match, PortRange, Protocol, Rule, Ruleset};

/// What a rule can see of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Source address.
    pub saddr: IpAddr,
    /// Destination address, of the same family.
    pub daddr: IpAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Source and destination port; none in a fragment that is not the first.
    pub ports: Option<(u16, u16)>,
}

impl Seen {
    /// Asks the tables.
    pub fn look_up(&self, tables: &impl abi::Tables) -> Option<usize> {
        let (sport, dport) = self.ports.unwrap_or((0, 0));
        let key = abi::Key {
            family: u32::from(self.saddr.is_ipv6()),
            saddr: &bytes(self.saddr),
            daddr: &bytes(self.daddr),
            port_root: abi::port_root(self.protocol.number(), self.ports.is_none().into()),
            sport: sport.to_be_bytes(),
            dport: dport.to_be_bytes(),
        };
        abi::find_rule(tables, &key).map(|number| number as usize)
    }
}

/// Of an IPv4 address the last four bytes; what stands before them must not matter.
fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0xA5; 16];
            bytes[12..].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Number of the first rule that matches.
pub fn first_match(ruleset: &Ruleset, seen: &Seen) -> Option<usize> {
    ruleset.rules.iter().position(|rule| matches(rule, seen))
}

fn matches(rule: &Rule, seen: &Seen) -> bool {
    let address = |value: &Option<Match<Cidr>>, address: IpAddr| match value {
        None => true,
        Some(Match { negated, values }) => {
            values.iter().any(|&cidr| within(cidr, address)) != *negated
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
    holds_for(rule, seen.saddr)
        && rule.matches.protocol == seen.protocol
        && address(&rule.matches.saddr, seen.saddr)
        && address(&rule.matches.daddr, seen.daddr)
        && port(&rule.matches.sport, sport)
        && port(&rule.matches.dport, dport)
}

/// Whether `rule` is for packets with addresses like `address`.
fn holds_for(rule: &Rule, address: IpAddr) -> bool {
    let named = rule.matches.family.map(|family| family == Family::Ip6);
    let dnat = match rule.action {
        Action::Accept | Action::Drop => None,
        Action::Dnat(address) => Some(address),
        Action::Funnel { dnat, .. }
        | Action::Unfunnel { dnat, .. }
        | Action::Translate { dnat, .. } => dnat,
    };
    named.or(dnat.map(|to| to.is_ipv6())).is_none_or(|ipv6| ipv6 == address.is_ipv6())
}

/// Whether the first bits of both are the same.
fn within(cidr: Cidr, address: IpAddr) -> bool {
    match (cidr.network(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= cidr.prefix().into()
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= cidr.prefix().into()
        }
        _ => false,
    }
}
