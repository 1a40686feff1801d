//! The order in which a header is pushed or removed, and what a failure means at each step.

use abi::{Reason, RuleEntry, flag};

use super::checksum::Sum;
use super::ip::{self, ethertype};
use super::packet::Packet;
use super::skb::{Done, Offset, Skb};
use super::vlan::{self, Lifted};

/// A packet that is about to change its length.
///
/// ```text
/// begin     nothing is changed, but for a VLAN tag that is taken off for the time
/// resized   the length is changed, or the packet is as it was
/// finish    the new bytes are filled in; a failure drops what nobody has sent
/// ```
pub struct Rewrite {
    tag: Lifted,
    /// Where the IP header is until `finish`.
    pub l3: Offset,
}

impl Rewrite {
    /// Makes sure that the kernel's helpers will change the packet in the right place.
    #[inline(always)]
    pub fn begin(skb: &Skb, packet: &Packet) -> Result<Self, Reason> {
        let (tag, l3) = vlan::lift(skb, packet.ip.tags, packet.ip.l3)?;
        let packet = skb.again(packet);
        let rewrite = Self { tag, l3 };
        if !skb.agrees(ethertype(packet.ip.family), packet.ip.first) {
            rewrite.resized(packet, Err(Reason::HelperError))?;
        }
        Ok(rewrite)
    }

    /// What a failure to change the length means: `result` tells itself whether it has left the
    /// packet as it was, but for the tag.
    #[inline(always)]
    pub fn resized(&self, packet: &Packet, result: Result<(), Reason>) -> Result<(), Reason> {
        match result {
            // Without its tag the packet is not what it was.
            Err(Reason::HelperError) if !packet.ip.tags.is_empty() => Err(Reason::Dropped),
            result => result,
        }
    }

    /// Puts the tag back, once the new bytes are written.
    #[inline(always)]
    pub fn finish(self, skb: &Skb, written: Done) -> Result<(), Reason> {
        if written.is_err() || self.tag.put_back(skb).is_err() {
            return Err(Reason::Dropped);
        }
        skb.set_hash_invalid();
        Ok(())
    }
}

/// Sets the destination address in the header at `l3` if `rule` has one. Returns the sum of both
/// addresses that the packet then has.
#[inline(always)]
pub fn set_daddr(skb: &Skb, packet: &Packet, rule: &RuleEntry, l3: Offset) -> Done<Sum> {
    let sum = packet.ip.addresses.sum();
    if rule.flags & flag::DNAT == 0 {
        return Ok(sum);
    }
    ip::set_daddr(skb, packet.ip.family, l3, &rule.dnat)?;
    Ok(sum.subtract(Sum::address(&packet.ip.addresses.daddr)).add(Sum::address(&rule.dnat)))
}
