//! Rulesets, and what a rule sees of packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use ruleset::ast::{
    Action, Cidr, Family, InnerPorts, Match, Matches, Port, PortRange, Protocol, Rule, Ruleset,
    TcpFlags, Verb,
};
use ruleset::{Compiled, Diagnostic, Kind, compile};

use super::{address, address6, host};
use crate::naive::Seen;

/// Values are drawn from few, so that rules meet each other and packets meet rules.
const PORTS: [u16; 8] = [1, 80, 179, 540, 8080, 32768, 60999, 65535];
const NETWORKS: [(Ipv4Addr, u8); 7] = [
    (Ipv4Addr::new(10, 0, 0, 1), 32),
    (Ipv4Addr::new(10, 0, 0, 2), 32),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 1, 0, 0), 16),
    (Ipv4Addr::new(0, 0, 0, 0), 0),
    (Ipv4Addr::new(128, 0, 0, 0), 1),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];
/// Some differ in their last bits alone, some look like an IPv4 address.
const NETWORKS6: [(Ipv6Addr, u8); 9] = [
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 128),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2), 127),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0), 61),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 0),
    (Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0), 1),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, 0x0A00, 1), 128),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0x0A00, 1), 96),
    (Ipv6Addr::from_bits(u128::MAX), 128),
];

/// A ruleset of 1 to `most` rules. Its rules in place may collide; everything else is allowed.
pub fn ruleset(rng: &mut StdRng, most: usize) -> Ruleset {
    let rules = rng.random_range(1..=most);
    Ruleset { rules: (0..rules).map(|_| rule(rng)).collect() }
}

/// Compiles `ruleset` without the rules that collide with an earlier one.
pub fn one_to_one(mut ruleset: Ruleset) -> Compiled {
    loop {
        match compile(&ruleset.to_string()) {
            Ok(compiled) => {
                assert_eq!(compiled.ruleset, ruleset);
                return compiled;
            }
            Err(Diagnostic { kind: Kind::Collision(_), line, .. }) => {
                ruleset.rules.remove(line - 1);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn rule(rng: &mut StdRng) -> Rule {
    let family = [None, Some(Family::Ip), Some(Family::Ip6)][rng.random_range(0..3)];
    let matched = |rng: &mut StdRng| {
        family.and_then(|family| maybe(rng, |rng| matching(rng, |rng| cidr(rng, family))))
    };
    let (saddr, mut daddr, protocol) = (matched(rng), matched(rng), protocol(rng));
    let mut dnat = maybe(rng, |rng| new_address(rng, family));
    let (sport, dport, action) = if rng.random_bool(0.2) {
        // With a new address in place, one address is matched.
        match (family, dnat) {
            (Some(family), Some(_)) => daddr = Some(one(network(rng, family).0.into())),
            _ => dnat = None,
        }
        let (sport, dport) = (port_range(rng), port_range(rng));
        let action = Action::Translate {
            verb: if rng.random() { Verb::Funnel } else { Verb::Unfunnel },
            protocol,
            sport: as_long(rng, sport),
            dport: as_long(rng, dport),
            dnat,
        };
        (Some(one(sport)), Some(one(dport)), action)
    } else {
        let ports = |rng: &mut StdRng| maybe(rng, |rng| matching(rng, port_range));
        (ports(rng), ports(rng), action(rng, family, dnat))
    };
    Rule { matches: Matches { family, saddr, daddr, protocol, sport, dport }, action }
}

fn one<T>(value: T) -> Match<T> {
    Match { negated: false, values: vec![value] }
}

/// Any action but one in place.
fn action(rng: &mut StdRng, family: Option<Family>, dnat: Option<IpAddr>) -> Action {
    match rng.random_range(0..5) {
        0 => Action::Accept,
        1 => Action::Drop,
        2 => Action::Dnat(new_address(rng, family)),
        3 => Action::Unfunnel { protocol: protocol(rng), inner: inner(rng), dnat },
        _ => {
            let through = protocol(rng);
            let flags = match through {
                Protocol::Tcp => maybe(rng, |rng| TcpFlags(rng.random_range(1..=u8::MAX))),
                Protocol::Udp => None,
            };
            let (sport, dport, inner) = (port(rng), port(rng), inner(rng));
            let flags = flags.unwrap_or_default();
            Action::Funnel { through, sport, dport, flags, inner, dnat }
        }
    }
}

fn inner(rng: &mut StdRng) -> InnerPorts {
    if rng.random() {
        return InnerPorts::default();
    }
    InnerPorts { sport: maybe(rng, port), dport: maybe(rng, port) }
}

/// A range of the same size as `range`.
fn as_long(rng: &mut StdRng, range: PortRange) -> PortRange {
    let more = range.size() - 1;
    let first = Port::new(rng.random_range(1..=u16::MAX - more)).expect("not 0");
    PortRange { first, last: first.checked_add(more).expect("it is in range") }
}

/// An address for `dnat`.
fn new_address(rng: &mut StdRng, family: Option<Family>) -> IpAddr {
    match family.unwrap_or_else(|| any_family(rng)) {
        Family::Ip => host(rng, |rng| address(rng).into()),
        Family::Ip6 => host(rng, |rng| address6(rng).into()),
    }
}

fn any_family(rng: &mut StdRng) -> Family {
    if rng.random() { Family::Ip } else { Family::Ip6 }
}

fn maybe<T>(rng: &mut StdRng, make: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    rng.random_bool(0.5).then(|| make(rng))
}

fn matching<T>(rng: &mut StdRng, value: impl Fn(&mut StdRng) -> T) -> Match<T> {
    let values = if rng.random_bool(0.7) { 1 } else { rng.random_range(1..=5) };
    Match { negated: rng.random_bool(0.2), values: (0..values).map(|_| value(rng)).collect() }
}

fn protocol(rng: &mut StdRng) -> Protocol {
    if rng.random() { Protocol::Tcp } else { Protocol::Udp }
}

/// One of the networks of `family`.
fn network(rng: &mut StdRng, family: Family) -> (IpAddr, u8) {
    match family {
        Family::Ip => {
            let &(address, prefix) = NETWORKS.choose(rng).expect("there are some");
            (address.into(), prefix)
        }
        Family::Ip6 => {
            let &(address, prefix) = NETWORKS6.choose(rng).expect("there are some");
            (address.into(), prefix)
        }
    }
}

fn cidr(rng: &mut StdRng, family: Family) -> Cidr {
    let (mut address, prefix) = network(rng, family);
    if rng.random_bool(0.2) {
        address = any_address(rng, family);
    }
    Cidr::new(address, prefix).expect("a prefix of the family")
}

fn any_address(rng: &mut StdRng, family: Family) -> IpAddr {
    match family {
        Family::Ip => Ipv4Addr::from_bits(rng.random()).into(),
        Family::Ip6 => Ipv6Addr::from_bits(rng.random()).into(),
    }
}

fn port(rng: &mut StdRng) -> Port {
    let port = if rng.random_bool(0.3) { rng.random() } else { *PORTS.choose(rng).expect("some") };
    Port::new(port).unwrap_or(Port::MIN)
}

fn port_range(rng: &mut StdRng) -> PortRange {
    let (a, b) = (port(rng), port(rng));
    if rng.random_bool(0.6) {
        PortRange { first: a, last: a }
    } else {
        PortRange { first: a.min(b), last: a.max(b) }
    }
}

/// A packet's headers that have a chance to match.
pub fn seen(rng: &mut StdRng) -> Seen {
    let family = any_family(rng);
    let address = |rng: &mut StdRng| {
        if rng.random_bool(0.3) {
            return any_address(rng, family);
        }
        let near = rng.random_range(0..3);
        match network(rng, family).0 {
            IpAddr::V4(address) => {
                Ipv4Addr::from_bits(address.to_bits().wrapping_add(near).wrapping_sub(1)).into()
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits().wrapping_add(near.into()).wrapping_sub(1);
                Ipv6Addr::from_bits(bits).into()
            }
        }
    };
    let port = |rng: &mut StdRng| match rng.random_range(0..10) {
        0 => rng.random(),
        1 => 0,
        n => PORTS.choose(rng).expect("there are some").wrapping_add(n % 3).wrapping_sub(1),
    };
    Seen {
        saddr: address(rng),
        daddr: address(rng),
        protocol: protocol(rng),
        ports: rng.random_bool(0.95).then(|| (port(rng), port(rng))),
    }
}
