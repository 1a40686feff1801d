//! Removes a funnel header.
//!
//! ```text
//! before   [ip][options][funnel header] [l4 ...]
//! after    [ip][options]                [l4 ...]
//! ```
//!
//! The inner checksum was made for addresses of 0; the addresses that the packet has on arrival are
//! added to it.

use abi::{Reason, RuleEntry, wire};

use super::checksum::Sum;
use super::ip;
use super::packet::{Packet, is_segment, tcp_data_offset};
use super::ports::Ports;
use super::rewrite::{Rewrite, set_daddr};
use super::skb::{Done, Offset, Refused, Skb};

/// Carries out an `unfunnel` rule.
#[inline(always)]
pub fn unfunnel(skb: &Skb, packet: &Packet, rule: &RuleEntry) -> Result<(), Reason> {
    packet.check_whole(skb)?;
    if !is_funnelled(skb, packet, rule.protocol)? {
        return Err(Reason::NotFunnelled);
    }
    let header_len = wire::header_len(skb.again(packet).ip.protocol);

    let rewrite = Rewrite::begin(skb, packet)?;
    let (packet, l3) = (skb.again(packet), rewrite.l3);
    rewrite.resized(packet, remove(skb, packet, l3, header_len))?;
    let packet = skb.again(packet);
    rewrite.finish(skb, write(skb, packet, rule, l3, header_len))
}

/// Whether the packet can be a funnelled one: a header of the funnel's size, and behind it a header
/// of `protocol` whose length is right.
#[inline(always)]
fn is_funnelled(skb: &Skb, packet: &Packet, protocol: u8) -> Result<bool, Reason> {
    let header_len = wire::header_len(packet.ip.protocol);
    if packet.l4_len < header_len + wire::header_len(protocol) {
        return Ok(false);
    }
    let outer = packet.l4();
    let outer_fits = if packet.ip.protocol == wire::UDP {
        is_segment(skb, outer, wire::UDP, packet.l4_len)?
    } else {
        // A funnel header has no options.
        tcp_data_offset(skb, outer)? == header_len
    };
    if !outer_fits {
        return Ok(false);
    }
    let packet = skb.again(packet);
    // A funnel header's checksum is finished. One that is not belongs to a packet of this machine
    // that looks like a funnelled one.
    let at = outer + wire::checksum_offset(packet.ip.protocol);
    if packet.is_pending(skb, at, skb.load::<u16>(at)?)? {
        return Ok(false);
    }
    let packet = skb.again(packet);
    is_segment(skb, outer + header_len, protocol, packet.l4_len - header_len)
}

/// Takes `header_len` bytes out, so that what is left has the right length. What stands between the
/// IP header's fixed part and the funnel header (IPv4's options) is put back in its place.
#[inline(always)]
fn remove(skb: &Skb, packet: &Packet, l3: Offset, header_len: u32) -> Result<(), Reason> {
    let options_len = packet.options_len();
    if options_len == 0 {
        return Ok(skb.adjust_room(-(header_len as i32))?);
    }
    let behind = l3 + packet.base_len();
    let options = skb.save(behind, options_len)?;
    skb.adjust_room(-(header_len as i32))?;
    skb.restore(behind, &options).map_err(|_| Reason::Dropped)
}

#[inline(always)]
fn write(skb: &Skb, packet: &Packet, rule: &RuleEntry, l3: Offset, header_len: u32) -> Done {
    ip::grow(skb, packet.ip.family, l3, -(header_len as i32), Some(rule.protocol))?;
    let addresses = set_daddr(skb, packet, rule, l3)?;

    let l4 = l3 + packet.ip.ip_len;
    let mut changed = Sum::ZERO;
    if rule.inner_sport | rule.inner_dport != 0 {
        let old = skb.load::<Ports>(l4)?;
        let ports = old.or(rule.inner_sport, rule.inner_dport);
        changed = ports.instead_of(old);
        skb.store(l4, &ports)?;
    }
    let changed = changed.forget(skb);

    let at = l4 + wire::checksum_offset(rule.protocol);
    let check = skb.load::<u16>(at)?;
    if check == 0 && rule.protocol == wire::UDP {
        return Ok(());
    }
    let check = if skb.is_checksum_pending(at, check).map_err(|_| Refused)? {
        // On the same machine the checksum may be pending still: it then is the pseudo-header's.
        Sum::pseudo_header(addresses, rule.protocol, packet.l4_len - header_len).fold()
    } else {
        Sum::behind(check).add(addresses).add(changed).checksum_of(rule.protocol)
    };
    skb.store(at, &check)
}
