//! Removes a funnel header.
//!
//! ```text
//! before   [ip][options][funnel header] [l4 ...]
//! after    [ip][options]                [l4 ...]
//! ```
//!
//! The inner checksum was made for addresses of 0; the addresses that the packet has on arrival are
//! added to it.

use abi::{Reason, RuleEntry, flag, wire};

use super::checksum::Sum;
use super::packet::{IPV4_HEADER, Packet, is_segment, tcp_data_offset};
use super::rewrite::rewrite;
use super::skb::{Done, Offset, Refused, Skb};

/// Carries out an `unfunnel` rule.
#[inline(always)]
pub fn unfunnel(skb: &Skb, packet: &Packet, rule: &RuleEntry) -> Result<(), Reason> {
    packet.check_whole(skb)?;
    let header_len = wire::header_len(packet.ip.protocol);
    if !is_funnelled(skb, packet, rule.protocol, header_len)? {
        return Err(Reason::NotFunnelled);
    }

    rewrite(
        skb,
        packet,
        |l3| remove(skb, packet, l3, header_len),
        |l3| write(skb, packet, rule, l3, header_len),
    )
}

/// Whether the packet can be a funnelled one: a header of the funnel's size, and behind it a header
/// of `protocol` whose length is right.
#[inline(always)]
fn is_funnelled(skb: &Skb, packet: &Packet, protocol: u8, header_len: u32) -> Result<bool, Reason> {
    if packet.l4_len < header_len + wire::header_len(protocol) {
        return Ok(false);
    }
    let outer = packet.l4();
    let outer_fits = if skb.forget(packet.ip.protocol.into()) as u8 == wire::UDP {
        is_segment(skb, outer, wire::UDP, packet.l4_len)?
    } else {
        // A funnel header has no options.
        tcp_data_offset(skb, outer)? == header_len
    };
    if !outer_fits {
        return Ok(false);
    }
    // A funnel header's checksum is finished. One that is not belongs to a packet of this machine
    // that looks like a funnelled one.
    let (at, ip) = (outer + wire::checksum_offset(packet.ip.protocol), &packet.ip);
    let check = skb.load::<u16>(at)?;
    let pseudo = Sum::pseudo_header(ip.saddr, ip.daddr, ip.protocol, packet.l4_len);
    if check == pseudo.fold() && skb.is_checksum_pending(at, check)? {
        return Ok(false);
    }
    is_segment(skb, outer + header_len, protocol, packet.l4_len - header_len)
}

/// Takes `header_len` bytes out, so that what is left has the right length. The IPv4 header's fixed
/// part is as before; its options are put back in their place.
#[inline(always)]
fn remove(skb: &Skb, packet: &Packet, l3: Offset, header_len: u32) -> Result<(), Reason> {
    let options_len = packet.options_len();
    if options_len == 0 {
        return Ok(skb.adjust_room(-(header_len as i32))?);
    }
    let options = skb.save(l3 + IPV4_HEADER, options_len)?;
    skb.adjust_room(-(header_len as i32))?;
    skb.restore(l3 + IPV4_HEADER, &options).map_err(|_| Reason::Dropped)
}

#[inline(always)]
fn write(skb: &Skb, packet: &Packet, rule: &RuleEntry, l3: Offset, header_len: u32) -> Done {
    let mut ip = packet.ip;
    let daddr = if rule.flags & flag::DNAT != 0 { rule.dnat.to_be() } else { ip.daddr };
    ip.rewrite(rule.protocol, packet.total_len() - header_len, daddr);
    skb.store(l3, &ip)?;

    let at = l3 + packet.ip_len + wire::checksum_offset(rule.protocol);
    let check = skb.load::<u16>(at)?;
    if check == 0 && rule.protocol == wire::UDP {
        return Ok(());
    }
    let check = if skb.is_checksum_pending(at, check).map_err(|_| Refused)? {
        // On the same machine the checksum may be pending still: it then is the pseudo-header's.
        Sum::pseudo_header(ip.saddr, daddr, rule.protocol, packet.l4_len - header_len).fold()
    } else {
        Sum::behind(check).plus32(ip.saddr).plus32(daddr).checksum_of(rule.protocol)
    };
    skb.store(at, &check)
}
