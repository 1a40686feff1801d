//! ICMP errors (RFC 792; RFC 4443) and the packets that they quote.
//!
//! An error travels against the packet that it is about. With the ends of the quoted packet
//! exchanged, it looks like a packet that travels as the error does, and the rule for that one
//! tells how it is funnelled.

use abi::{Reason, wire};

use super::checksum::Sum;
use super::ip::{self, FRAGMENT_OFFSET, IpHeader, MORE_FRAGMENTS};
use super::packet::{Packet, l4_len};
use super::skb::{Plain, Skb};

/// Bytes of an ICMP header, behind which errors have their quote.
pub const ICMP_HEADER: u32 = 8;

/// Bytes of a TCP or UDP header that every error quotes (RFC 792).
const QUOTED: u32 = 8;

/// An ICMP or ICMPv6 error. Numbers in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    pub check: u16,
    /// What the kind makes of it: with "packet too big", the MTU.
    pub rest: [u16; 2],
}

const _: () = assert!(size_of::<IcmpError>() == ICMP_HEADER as usize);

// SAFETY: integers without padding.
unsafe impl Plain for IcmpError {}

/// Kinds of errors: RFC 792 for IPv4, RFC 4443 for IPv6.
pub mod kind {
    pub const UNREACHABLE: u8 = 3;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// The code of [`UNREACHABLE`] that says "fragmentation needed".
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    pub const PACKET_TOO_BIG_6: u8 = 2;
    /// Of IPv6, all errors are numbered from 1 to this one.
    pub const LAST_6: u8 = 4;
}

impl IcmpError {
    /// An error whose checksum is made over `behind` as well: what follows it, and IPv6's
    /// pseudo-header.
    #[inline(always)]
    pub fn new(kind: u8, code: u8, rest: [u16; 2], behind: Sum) -> Self {
        let kind_code = u16::from_ne_bytes([kind, code]);
        let check = behind.plus(kind_code).plus(rest[0]).plus(rest[1]).checksum();
        Self { kind, code, check, rest }
    }

    #[inline(always)]
    fn is_error(&self, family: u32) -> bool {
        if family == 0 {
            self.kind == kind::UNREACHABLE
                || self.kind == kind::TIME_EXCEEDED
                || self.kind == kind::PARAMETER_PROBLEM
        } else {
            1 <= self.kind && self.kind <= kind::LAST_6
        }
    }

    /// Whether objects stand behind the quote, whose length is then in the header (RFC 4884).
    #[inline(always)]
    pub fn has_objects(&self, family: u32) -> bool {
        let [byte4, byte5] = self.rest[0].to_ne_bytes();
        if family == 0 { byte5 != 0 } else { byte4 != 0 }
    }

    /// The lower half of what follows the checksum; where that is an MTU, less `by` bytes.
    #[inline(always)]
    pub fn reduced_mtu(&self, family: u32, by: u32) -> u16 {
        let (kind, code) = if family == 0 {
            (kind::UNREACHABLE, kind::FRAGMENTATION_NEEDED)
        } else {
            (kind::PACKET_TOO_BIG_6, 0)
        };
        let mtu = u16::from_be(self.rest[1]);
        // Routers from before RFC 1191 say 0.
        if self.kind == kind && self.code == code && u32::from(mtu) > by {
            (mtu - by as u16).to_be()
        } else {
            self.rest[1]
        }
    }
}

/// IP protocol number of the ICMP that belongs to `family`.
#[inline(always)]
fn icmp_protocol(family: u32) -> u8 {
    if family == 0 { wire::ICMP } else { wire::ICMPV6 }
}

/// Whether `ip` has a whole ICMP message behind it, of its own family.
#[inline(always)]
pub fn is_icmp(ip: &IpHeader) -> bool {
    ip.protocol == icmp_protocol(ip.family) && ip.fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0
}

/// Whether `ip` is one of IPv6's and has an extension header behind it, which may hide TCP or UDP
/// (IANA, "IPv6 Extension Header Types"). What hides ICMPv6 is of no interest: so every host tells
/// routers what it listens to (RFC 3810, 5).
#[inline(always)]
pub fn hides_a_header(ip: &IpHeader) -> bool {
    let [next_header, _] = ip.ports.sport.to_ne_bytes();
    // Two lists: of one, the compiler makes a table in .rodata.
    ip.family != 0
        && next_header != wire::ICMPV6
        && (matches!(ip.protocol, 0 | 43 | 44 | 51 | 60) || matches!(ip.protocol, 135 | 139 | 140))
}

/// Reads the error that `packet` is, if it is one and quotes a TCP or UDP packet that a rule could
/// know.
#[inline(always)]
pub fn parse(packet: &mut Packet, skb: &Skb) -> Result<bool, Reason> {
    let ip = &packet.ip;
    let Ok(l4_len) = l4_len(skb, ip) else { return Ok(false) };
    let at = ip.l3 + ip.ip_len;
    if l4_len < ICMP_HEADER + ip::base_len(ip.family) + QUOTED {
        return Ok(false);
    }
    let Ok(error) = skb.load::<IcmpError>(at) else { return Ok(false) };
    if !error.is_error(ip.family) {
        return Ok(false);
    }
    let quoted = skb.quoted();
    if quoted.load(skb, skb.again(packet).ip.family, at + ICMP_HEADER).is_err() {
        return Ok(false);
    }
    let quoted = skb.again(quoted);
    // Of a quoted header with options nobody has seen the like.
    if !wire::has_ports(quoted.protocol)
        || quoted.version != ip::version(quoted.family)
        || quoted.ip_len != ip::base_len(quoted.family)
        || quoted.fragment & FRAGMENT_OFFSET != 0
    {
        return Ok(false);
    }
    packet.set_quote(l4_len, quoted);
    Ok(true)
}
