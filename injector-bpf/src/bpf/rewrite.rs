//! The order in which a header is pushed or removed, and what a failure means at each step.

use abi::Reason;

use super::packet::Packet;
use super::skb::{Done, Offset, Skb};
use super::vlan;

/// Changes the length of `packet` by `resize`, then fills it in by `write`. Both get the place of
/// the IPv4 header.
///
/// `resize` tells itself whether a failure left the packet as it was. After it the packet is no
/// longer what anybody sent, so a failure of `write` drops it.
#[inline(always)]
pub fn rewrite(
    skb: &Skb,
    packet: &Packet,
    resize: impl FnOnce(Offset) -> Result<(), Reason>,
    write: impl FnOnce(Offset) -> Done,
) -> Result<(), Reason> {
    let (tag, l3) = vlan::lift(skb, packet.tags, packet.l3)?;
    match resize(l3) {
        Ok(()) => {}
        // Without its tag the packet is not what it was.
        Err(Reason::HelperError) if !packet.tags.is_empty() => return Err(Reason::Dropped),
        Err(reason) => return Err(reason),
    }
    if write(l3).and_then(|()| tag.put_back(skb)).is_err() {
        return Err(Reason::Dropped);
    }
    skb.set_hash_invalid();
    Ok(())
}
