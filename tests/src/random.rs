//! Packets and rulesets from a seed.

use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use ruleset::ast::{Action, Cidr, Match, Matches, Port, PortRange, Protocol, Rule, Ruleset};

use crate::model::{Packet, TCP, UDP};
use crate::naive::Seen;

/// The generator for `seed`; the environment variable `SEED` overrides it, to look for more.
pub fn rng(seed: u64) -> StdRng {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
    eprintln!("seed {seed}; another with SEED=n");
    StdRng::seed_from_u64(seed)
}

/// How a packet's checksum starts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Right,
    /// UDP without a checksum.
    Missing,
}

/// A TCP or UDP packet whose payload has `len` bytes.
pub fn packet(rng: &mut StdRng, protocol: u8, len: usize, checksum: Checksum) -> Packet {
    let mut segment = Vec::new();
    segment.extend(rng.random_range(1..=u16::MAX).to_be_bytes());
    segment.extend(rng.random_range(1..=u16::MAX).to_be_bytes());
    if protocol == UDP {
        segment.extend(((8 + len) as u16).to_be_bytes());
        segment.extend([0, 0]);
    } else {
        let options = rng.random_range(0..=10usize);
        let mut rest: [u8; 16] = rng.random();
        rest[8] = ((5 + options) << 4) as u8;
        segment.extend(rest);
        segment.extend((0..options * 4).map(|_| rng.random::<u8>()));
    }
    segment.extend((0..len).map(|_| rng.random::<u8>()));
    let options = match rng.random_range(0..4) {
        0 => rng.random_range(1..=10),
        _ => 0,
    };
    let packet = Packet {
        tos: rng.random(),
        id: rng.random(),
        // Don't fragment, or not.
        fragment: if rng.random() { 0x4000 } else { 0 },
        ttl: rng.random_range(2..=255),
        protocol,
        saddr: address(rng),
        daddr: address(rng),
        // No-operations: the one option that no router minds.
        options: vec![1; options * 4],
        segment,
    }
    .seal();
    match checksum {
        Checksum::Right => packet,
        Checksum::Missing => {
            assert_eq!(protocol, UDP, "TCP always has a checksum");
            let mut packet = packet;
            packet.set_check(0);
            packet
        }
    }
}

/// Any address. Some of them make checksums overflow.
pub fn address(rng: &mut StdRng) -> Ipv4Addr {
    match rng.random_range(0..8) {
        0 => Ipv4Addr::new(10, 0, 0, rng.random()),
        1 => Ipv4Addr::from_bits([0, 1, 0xFFFF, 0xFFFF_0000, 0xFFFF_FFFF][rng.random_range(0..5)]),
        _ => Ipv4Addr::from_bits(rng.random()),
    }
}

/// Values are drawn from few, so that rules meet each other and packets meet rules.
const PORTS: [u16; 8] = [1, 80, 179, 540, 8080, 32768, 60999, 65535];
const NETWORKS: [(u32, u8); 7] = [
    (0x0A00_0001, 32),
    (0x0A00_0002, 32),
    (0x0A00_0000, 8),
    (0x0A01_0000, 16),
    (0, 0),
    (0x8000_0000, 1),
    (0xFFFF_FFFF, 32),
];

/// A ruleset of 1 to `most` rules.
pub fn ruleset(rng: &mut StdRng, most: usize) -> Ruleset {
    let rules = rng.random_range(1..=most);
    Ruleset { rules: (0..rules).map(|_| rule(rng)).collect() }
}

fn rule(rng: &mut StdRng) -> Rule {
    let saddr = maybe(rng, |rng| matching(rng, cidr));
    let daddr = maybe(rng, |rng| matching(rng, cidr));
    Rule {
        matches: Matches {
            ip: saddr.is_some() || daddr.is_some() || rng.random(),
            saddr,
            daddr,
            protocol: protocol(rng),
            sport: maybe(rng, |rng| matching(rng, port_range)),
            dport: maybe(rng, |rng| matching(rng, port_range)),
        },
        action: action(rng),
    }
}

fn action(rng: &mut StdRng) -> Action {
    let dnat = maybe(rng, address);
    match rng.random_range(0..5) {
        0 => Action::Accept,
        1 => Action::Drop,
        2 => Action::Dnat(address(rng)),
        3 => Action::Unfunnel { protocol: protocol(rng), dnat },
        _ => Action::Funnel { through: protocol(rng), sport: port(rng), dport: port(rng), dnat },
    }
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

fn cidr(rng: &mut StdRng) -> Cidr {
    let &(address, prefix) = NETWORKS.choose(rng).expect("there are some");
    let address = if rng.random_bool(0.2) { rng.random() } else { address };
    Cidr::new(Ipv4Addr::from_bits(address), prefix).expect("a prefix of at most 32")
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
    let near = |rng: &mut StdRng| {
        let &(address, _) = NETWORKS.choose(rng).expect("there are some");
        let address = address.wrapping_add(rng.random_range(0..3)).wrapping_sub(1);
        if rng.random_bool(0.3) { rng.random() } else { address }
    };
    let port = |rng: &mut StdRng| match rng.random_range(0..10) {
        0 => rng.random(),
        1 => 0,
        n => PORTS.choose(rng).expect("there are some").wrapping_add(n % 3).wrapping_sub(1),
    };
    Seen {
        saddr: Ipv4Addr::from_bits(near(rng)),
        daddr: Ipv4Addr::from_bits(near(rng)),
        protocol: protocol(rng),
        ports: rng.random_bool(0.95).then(|| (port(rng), port(rng))),
    }
}

/// Every pair of a protocol and one that it is funnelled through.
pub const PAIRS: [(u8, u8); 4] = [(TCP, TCP), (TCP, UDP), (UDP, TCP), (UDP, UDP)];
