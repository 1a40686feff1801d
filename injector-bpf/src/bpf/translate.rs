//! Translates both ports in place: no header, nothing grows, and what is to be segmented or summed
//! up later still can be.

use abi::{Reason, RuleEntry, flag, wire};

use super::checksum::Sum;
use super::dnat::set_daddr;
use super::packet::Packet;
use super::ports::Ports;
use super::skb::{Offset, Skb};

/// Carries out a `funnel` or `unfunnel` rule with ranges of ports.
///
/// The packet keeps its hash: it is in the same flow as the other packets of its flow still.
///
/// Of a fragmented datagram the first piece alone has ports, and it alone is changed: its checksum
/// is that of the whole.
#[inline(always)]
pub fn translate(skb: &Skb, packet: &Packet, rule: &RuleEntry) -> Result<(), Reason> {
    let at = packet.checksum_at()?;
    // The other pieces would not get the new address.
    let dnat = rule.flags & flag::DNAT != 0;
    if dnat && packet.is_fragment() {
        return Err(Reason::Fragment);
    }
    let old = packet.ip.ports;
    let new = old.plus(rule.sport, rule.dport);
    if packet.ip.protocol == wire::UDP {
        set_udp_ports(skb, packet, at, old, new)?;
    } else {
        // Whether pending or finished: only the latter covers ports.
        skb.replace_in_checksum(at, old.bytes(), new.bytes(), false)?;
        skb.store_summed(packet.l4(), &new).map_err(|_| Reason::Dropped)?;
    }
    if dnat {
        set_daddr(skb, packet, &rule.dnat).map_err(|_| Reason::Dropped)?;
    }
    Ok(())
}

/// Sets the ports of a UDP packet, whose checksum is at `at`.
///
/// Whether that one is finished can't be left to the kernel to tell: of a tunnel's packet it may be,
/// while another one within the packet is not (local checksum offload).
#[inline(always)]
fn set_udp_ports(
    skb: &Skb,
    packet: &Packet,
    at: Offset,
    old: Ports,
    new: Ports,
) -> Result<(), Reason> {
    let check = skb.load::<u16>(at)?;
    if check == 0 {
        // There is none.
        return Ok(skb.store(packet.l4(), &new)?);
    }
    if check == packet.pseudo_header().fold() {
        // Pending, or finished and the same by chance.
        skb.replace_in_checksum(at, old.bytes(), new.bytes(), true)?;
    } else if skb.is_segmented() {
        // A list of datagrams, of which the kernel would change the first alone.
        return Err(Reason::Segmented);
    } else {
        let check = Sum::behind(check).add(new.instead_of(old)).checksum_of(wire::UDP);
        skb.store_summed(at, &check)?;
    }
    skb.store_summed(packet.l4(), &new).map_err(|_| Reason::Dropped)
}
