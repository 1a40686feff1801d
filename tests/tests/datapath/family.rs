//! What the tests of both families of addresses have in common.

use std::net::IpAddr;

use rand::rngs::StdRng;
use tests::model::{Packet, TCP};
use tests::random::{self, Checksum};

/// A family of addresses.
pub struct Family {
    /// What rules call it.
    pub name: &'static str,
    /// Makes a packet.
    pub packet: fn(&mut StdRng, u8, usize, Checksum) -> Packet,
    /// Makes an address.
    pub address: fn(&mut StdRng) -> IpAddr,
}

/// IPv4 and IPv6.
pub const FAMILIES: [Family; 2] = [
    Family { name: "ip", packet: random::packet, address: |rng| random::address(rng).into() },
    Family { name: "ip6", packet: random::packet6, address: |rng| random::address6(rng).into() },
];

/// What rules call a protocol.
pub fn name(protocol: u8) -> &'static str {
    if protocol == TCP { "tcp" } else { "udp" }
}
