//! Tells the sender of a packet that would not fit with a funnel header how long a packet may be
//! (RFC 1191; RFC 8201), as the router would on whose link it does not fit.
//!
//! ```text
//! before   [Ethernet]             [ip][options][l4 header][...]
//! after    [Ethernet][ip][icmp]   [ip][options][l4 header]
//! ```
//!
//! The answer seems to come from the packet's destination and from this interface, whether the
//! sender is this machine or one behind it: so a reverse path filter lets it through.

use abi::{Config, Reason, wire};

use super::checksum::Sum;
use super::icmp::{ICMP_HEADER, IcmpError, kind};
use super::ip::{Addresses, Ipv4Head, Ipv6Head, ethertype};
use super::packet::Packet;
use super::skb::{Done, Offset, Plain, Skb};

/// What an answer begins with. Numbers in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
struct Answer {
    ip: Ipv4Head,
    saddr: u32,
    daddr: u32,
    icmp: IcmpError,
}

/// Likewise.
#[derive(Clone, Copy)]
#[repr(C)]
struct Answer6 {
    ip: Ipv6Head,
    saddr: [u32; 4],
    daddr: [u32; 4],
    icmp: IcmpError,
}

// SAFETY: integers without padding.
unsafe impl Plain for Answer {}
// SAFETY: integers without padding.
unsafe impl Plain for Answer6 {}

const _: () = {
    assert!(size_of::<Answer>() == 28);
    assert!(size_of::<Answer6>() == 48);
};

/// Hops that an answer may take.
const TTL: u8 = 64;

/// Turns the packet into its answer, and has the interface receive it: the program is to return
/// `TC_ACT_REDIRECT`. `mtu` is what the sender is told, in bytes.
///
/// Where nobody may be answered it is [`Reason::NoRoom`], and the packet is as it was.
#[inline(always)]
pub fn answer(skb: &Skb, packet: &Packet, config: &Config, mtu: u32) -> Result<(), Reason> {
    if !packet.ip.tags.is_empty()
        || !skb.agrees(ethertype(packet.ip.family), packet.ip.first)
        || is_for_many(skb, packet, config.link_header)?
    {
        return Err(Reason::NoRoom);
    }
    let protocol = packet.ip.protocol;
    let l4_header = wire::header_len(protocol);
    // A pending checksum will be finished within the quote, if the answer leaves this machine. The
    // segment then sums up to the complement of the pseudo-header that the checksum holds now.
    let at = packet.checksum_at()?;
    let check = skb.load::<u16>(at)?;
    let segment = if packet.is_pending(skb, at, check)? {
        Sum::ZERO.minus(check)
    } else {
        skb.sum_header(packet.l4(), l4_header)?
    };
    let quote = skb.sum_header(packet.ip.l3, packet.ip.ip_len)?.add(segment);

    let quote_len = packet.ip.ip_len + l4_header;
    skb.change_len(packet.ip.l3.0 + quote_len)?;
    let written = if packet.ip.family == 0 {
        write(skb, packet, quote, quote_len, mtu)
    } else {
        write6(skb, packet, quote, quote_len, mtu)
    };
    written.and_then(|()| turn_round(skb, config.link_header)).map_err(|_| Reason::Dropped)?;
    skb.set_hash_invalid();
    skb.clear_way();
    skb.redirect_to_ingress(skb.interface());
    Ok(())
}

/// Whether the packet goes to many, or comes from nobody in particular (RFC 1122, 3.2.2; RFC 4443,
/// 2.4): by its IP addresses, or by the Ethernet address that a broadcast of a network has as well.
#[inline(always)]
fn is_for_many(skb: &Skb, packet: &Packet, link_header: u32) -> Result<bool, Reason> {
    if link_header != 0 && skb.load::<u8>(Offset(0))? & 1 != 0 {
        return Ok(true);
    }
    let Addresses { saddr, daddr } = &packet.ip.addresses;
    let ipv4 = packet.ip.family == 0;
    // Both words are read: of a choice of places, the compiler makes a pointer that not every
    // verifier allows.
    let first = |&[a, _, _, d]: &[u32; 4]| {
        let (a, d) = (skb.forget(a), skb.forget(d));
        u32::from_be(if ipv4 { d } else { a })
    };
    // IPv4's class D and above; IPv6's ff00::/8.
    let many = if ipv4 { 0xE000_0000 } else { 0xFF00_0000 };
    let nobody = Sum::address(saddr).fold() == 0;
    Ok(first(daddr) >= many || first(saddr) >= many || nobody)
}

#[inline(always)]
fn write(skb: &Skb, packet: &Packet, quote: Sum, quote_len: u32, mtu: u32) -> Done {
    let [.., saddr] = packet.ip.addresses.daddr;
    let [.., daddr] = packet.ip.addresses.saddr;
    let mut ip = Ipv4Head {
        version_ihl: 0x45,
        // As the kernel's own errors have it: internetwork control.
        tos: 0xC0,
        total_len: ((size_of::<Answer>() as u32 + quote_len) as u16).to_be(),
        id: 0,
        fragment: 0x4000_u16.to_be(),
        ttl: TTL,
        protocol: wire::ICMP,
        check: 0,
    };
    ip.check = Sum::ZERO
        .plus(u16::from_ne_bytes([ip.version_ihl, ip.tos]))
        .plus(ip.total_len)
        .plus(ip.fragment)
        .plus(u16::from_ne_bytes([ip.ttl, ip.protocol]))
        .plus32(saddr)
        .plus32(daddr)
        .checksum();
    let (kind, code) = (kind::UNREACHABLE, kind::FRAGMENTATION_NEEDED);
    let icmp = IcmpError::new(kind, code, [0, (mtu as u16).to_be()], quote);
    skb.make_room_for_ip(size_of::<Answer>() as u32)?;
    skb.store(packet.ip.l3, &Answer { ip, saddr, daddr, icmp })
}

#[inline(always)]
fn write6(skb: &Skb, packet: &Packet, quote: Sum, quote_len: u32, mtu: u32) -> Done {
    let (saddr, daddr) = (packet.ip.addresses.daddr, packet.ip.addresses.saddr);
    let payload_len = ICMP_HEADER + quote_len;
    let ip = Ipv6Head {
        version_flow: 0x6000_0000_u32.to_be(),
        payload_len: (payload_len as u16).to_be(),
        next_header: wire::ICMPV6,
        hop_limit: TTL,
    };
    // The sum of the addresses is the same in both directions.
    let pseudo = Sum::pseudo_header(packet.ip.addresses.sum(), wire::ICMPV6, payload_len);
    let mtu = [0, (mtu as u16).to_be()];
    let icmp = IcmpError::new(kind::PACKET_TOO_BIG_6, 0, mtu, quote.add(pseudo));
    skb.make_room_for_ip(size_of::<Answer6>() as u32)?;
    skb.store(packet.ip.l3, &Answer6 { ip, saddr, daddr, icmp })
}

/// Exchanges the ends of the Ethernet header, where there is one.
#[inline(always)]
fn turn_round(skb: &Skb, link_header: u32) -> Done {
    if link_header == 0 {
        return Ok(());
    }
    let [to, from] = skb.load::<[[u16; 3]; 2]>(Offset(0))?;
    skb.store(Offset(0), &[from, to])
}
