//! Sets the destination address.

use abi::{Reason, RuleEntry, flag, wire};

use super::checksum::Sum;
use super::ip;
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
    set_daddr(skb, packet, &rule.dnat)?;
    skb.set_hash_invalid();
    Ok(())
}

/// Sets the destination address, in network byte order.
#[inline(always)]
pub fn set_daddr(skb: &Skb, packet: &Packet, daddr: &[u32; 4]) -> Result<(), Reason> {
    let protocol = packet.ip.protocol;
    if packet.has_l4_header() {
        // Else the checksum is in another piece.
        let at = packet.checksum_at()?;
        let check = skb.load::<u16>(at)?;
        if check != 0 || protocol != wire::UDP {
            let old = Sum::address(&packet.ip.addresses.daddr);
            let new = Sum::address(daddr);
            let pending = packet.is_pending(skb, at, check)?;
            if !pending && skb.is_segmented() && protocol == wire::UDP {
                // A list of datagrams, of which the kernel would change the first alone.
                return Err(Reason::Segmented);
            }
            let check = if pending {
                Sum::ZERO.plus(check).subtract(old).add(new).fold()
            } else {
                Sum::behind(check).subtract(old).add(new).checksum_of(protocol)
            };
            skb.store(at, &check)?;
        }
    }
    ip::set_daddr(skb, packet.ip.family, packet.ip.l3, daddr).map_err(|_| Reason::Dropped)
}
