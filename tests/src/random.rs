//! Packets and rulesets from a seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::model::{Packet, TCP, UDP};

mod rules;

pub use rules::{one_to_one, ruleset, seen};

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

/// A TCP or UDP packet over IPv4 whose payload has `len` bytes.
pub fn packet(rng: &mut StdRng, protocol: u8, len: usize, checksum: Checksum) -> Packet {
    packet_between(rng, protocol, len, checksum, |rng| address(rng).into())
}

/// A TCP or UDP packet over IPv6 whose payload has `len` bytes.
pub fn packet6(rng: &mut StdRng, protocol: u8, len: usize, checksum: Checksum) -> Packet {
    packet_between(rng, protocol, len, checksum, |rng| address6(rng).into())
}

fn packet_between(
    rng: &mut StdRng,
    protocol: u8,
    len: usize,
    checksum: Checksum,
    address: impl Fn(&mut StdRng) -> IpAddr,
) -> Packet {
    let mut segment = Vec::new();
    segment.extend(rng.random_range(1..=u16::MAX).to_be_bytes());
    segment.extend(rng.random_range(1..=u16::MAX).to_be_bytes());
    if protocol == UDP {
        segment.extend(((8 + len) as u16).to_be_bytes());
        segment.extend([0, 0]);
    } else {
        let options = tcp_options(rng);
        let mut rest: [u8; 16] = rng.random();
        rest[8] = ((5 + options.len() / 4) << 4) as u8;
        segment.extend(rest);
        segment.extend(options);
    }
    segment.extend((0..len).map(|_| rng.random::<u8>()));
    let (saddr, daddr) = (address(rng), address(rng));
    let options = match rng.random_range(0..4) {
        0 if saddr.is_ipv4() => rng.random_range(1..=10),
        _ => 0,
    };
    let packet = Packet {
        tos: rng.random(),
        id: if saddr.is_ipv4() { rng.random() } else { 0 },
        // Don't fragment, or not.
        fragment: if saddr.is_ipv4() && rng.random() { 0x4000 } else { 0 },
        flow: if saddr.is_ipv4() { 0 } else { rng.random_range(0..1 << 20) },
        ttl: rng.random_range(2..=255),
        protocol,
        saddr,
        daddr,
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

/// Up to 40 bytes: noise, or what a SYN has, with its largest segment size anywhere among them.
fn tcp_options(rng: &mut StdRng) -> Vec<u8> {
    if rng.random() {
        return (0..rng.random_range(0..=10usize) * 4).map(|_| rng.random::<u8>()).collect();
    }
    let mut options = Vec::new();
    let mss = rng.random_range(0..=4);
    for n in 0..4 {
        options.extend(vec![1; [0, 0, 1, 2, 7][rng.random_range(0..5)]]);
        if n == mss {
            let value: u16 = [rng.random(), 1460, 21, 20, 8, 9, 0][rng.random_range(0..7)];
            options.extend([2, 4]);
            options.extend(value.to_be_bytes());
        }
    }
    // Window scale; the end of the list.
    options.extend([3, 3, 7, 0]);
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// Any IPv4 address. Some of them make checksums overflow.
pub fn address(rng: &mut StdRng) -> Ipv4Addr {
    match rng.random_range(0..8) {
        0 => Ipv4Addr::new(10, 0, 0, rng.random()),
        1 => Ipv4Addr::from_bits([0, 1, 0xFFFF, 0xFFFF_0000, 0xFFFF_FFFF][rng.random_range(0..5)]),
        _ => Ipv4Addr::from_bits(rng.random()),
    }
}

/// Any IPv6 address. Some of them make checksums overflow.
pub fn address6(rng: &mut StdRng) -> Ipv6Addr {
    match rng.random_range(0..8) {
        0 => Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, 0, rng.random()),
        1 => {
            Ipv6Addr::from_bits([0, 1, 0xFFFF, u128::MAX << 16, u128::MAX][rng.random_range(0..5)])
        }
        _ => Ipv6Addr::from_bits(rng.random()),
    }
}

/// One of the addresses that `address` makes that a host can have, as `dnat` needs it.
pub fn host(rng: &mut StdRng, address: impl Fn(&mut StdRng) -> IpAddr) -> IpAddr {
    loop {
        let address = address(rng);
        let no_host = address.is_unspecified() || address.is_multicast();
        if !no_host && address != IpAddr::V4(Ipv4Addr::BROADCAST) {
            return address;
        }
    }
}

/// Every pair of a protocol and one that it is funnelled through.
pub const PAIRS: [(u8, u8); 4] = [(TCP, TCP), (TCP, UDP), (UDP, TCP), (UDP, UDP)];
