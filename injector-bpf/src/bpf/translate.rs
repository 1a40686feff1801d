//! Translates both ports in place: no header, nothing grows, and what is to be segmented or summed
//! up later still can be.

use abi::{Reason, RuleEntry, flag, wire};

use super::dnat::set_daddr;
use super::packet::Packet;
use super::skb::Skb;

/// Carries out a `funnel` or `unfunnel` rule with ranges of ports.
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
    let udp = packet.ip.protocol == wire::UDP;
    if udp && skb.load::<u16>(at)? == 0 {
        // There is no checksum.
        skb.store(packet.l4(), &new)?;
    } else {
        skb.replace_in_checksum(at, old.bytes(), new.bytes(), udp)?;
        skb.store_summed(packet.l4(), &new).map_err(|_| Reason::Dropped)?;
    }
    if dnat {
        set_daddr(skb, packet, &rule.dnat).map_err(|_| Reason::Dropped)?;
    }
    skb.set_hash_invalid();
    Ok(())
}
