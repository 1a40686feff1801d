//! Sets the destination address.

use abi::{Reason, RuleEntry, flag, wire};

use super::packet::Packet;
use super::skb::Skb;

/// Carries out a `dnat` rule.
///
/// A rule without ports holds for all pieces of a fragmented datagram, and each gets the new
/// address; the checksum is in the first. A rule with ports would see the first alone, so it leaves
/// that one too.
#[inline(always)]
pub fn dnat(skb: &Skb, packet: &Packet, rule: &RuleEntry) -> Result<(), Reason> {
    if packet.is_fragment() && rule.flags & flag::PORTS != 0 {
        return Err(Reason::Fragment);
    }
    let protocol = packet.ip.protocol;
    let daddr = rule.dnat.to_be();
    if packet.has_l4_header() {
        if packet.l4_len < wire::header_len(protocol) {
            // The checksum is in another piece.
            return Err(Reason::TooShort);
        }
        let at = packet.l4() + wire::checksum_offset(protocol);
        skb.replace_pseudo_header(at, packet.ip.daddr, daddr, protocol == wire::UDP)?;
    }
    let mut ip = packet.ip;
    // The length stays as it was written: that of merged packets may say 0.
    ip.rewrite(protocol, ip.total_len(), daddr);
    if skb.store(packet.l3, &ip).is_err() {
        return Err(Reason::Dropped);
    }
    skb.set_hash_invalid();
    Ok(())
}
