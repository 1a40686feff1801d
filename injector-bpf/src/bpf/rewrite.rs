//! The order in which a header is pushed or removed, and what a failure means at each step.

use abi::{Reason, RuleEntry, flag};

use super::checksum::Sum;
use super::ip::ethertype;
use super::packet::Packet;
use super::skb::{Done, Offset, Skb};
use super::vlan;

/// Changes the length of `packet` by `resize`, then fills it in by `write`. Both get the place of
/// the IP header.
///
/// `resize` tells itself whether a failure left the packet as it was. After it the packet is no
/// longer what anybody sent, so a failure of `write` drops it.
#[inline(always)]
pub fn rewrite(
    skb: &Skb,
    packet: &Packet,
    resize: impl FnOnce(&Packet, Offset) -> Result<(), Reason>,
    write: impl FnOnce(&Packet, Offset) -> Done,
) -> Result<(), Reason> {
    let (tag, l3) = vlan::lift(skb, packet.ip.tags, packet.ip.l3)?;
    let packet = skb.again(packet);
    let ethertype = ethertype(packet.ip.family);
    let agreed = if skb.agrees(ethertype, packet.ip.first) {
        resize(packet, l3)
    } else {
        Err(Reason::HelperError)
    };
    match agreed {
        Ok(()) => {}
        // Without its tag the packet is not what it was.
        Err(Reason::HelperError) if !packet.ip.tags.is_empty() => return Err(Reason::Dropped),
        Err(reason) => return Err(reason),
    }
    let packet = skb.again(packet);
    if write(packet, l3).and_then(|()| tag.put_back(skb)).is_err() {
        return Err(Reason::Dropped);
    }
    skb.set_hash_invalid();
    Ok(())
}

/// The destination address that `rule` sets, if it does, in network byte order; and the sum of both
/// addresses that the packet then has.
#[inline(always)]
pub fn new_daddr<'a>(packet: &Packet, rule: &'a RuleEntry) -> (Option<&'a [u32; 4]>, Sum) {
    if rule.flags & flag::DNAT == 0 {
        return (None, packet.ip.addresses.sum());
    }
    (
        Some(&rule.dnat),
        packet
            .ip
            .addresses
            .sum()
            .subtract(Sum::address(&packet.ip.addresses.daddr))
            .add(Sum::address(&rule.dnat)),
    )
}
