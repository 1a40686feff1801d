//! VLAN tags (IEEE 802.1Q).
//!
//! The kernel holds the outermost tag apart from the frame, unless nobody has parsed the frame yet.
//! `bpf_skb_adjust_room` works on a frame without tags alone. So a tag in the frame is taken off
//! for the time. Only if it is the one tag that there is: before Linux 6.12 a second one could not
//! be put back without harm at ingress ("tc: adjust network header after 2nd vlan push").

use abi::Reason;

use super::ip::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::skb::{Done, Offset, Plain, Skb};

/// TPIDs of customer and service tags, in network byte order.
const TPID_C: u16 = 0x8100_u16.to_be();
const TPID_S: u16 = 0x88A8_u16.to_be();

/// Bytes of a tag.
const TAG: u32 = 4;

/// What stands behind a TPID, in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tag {
    tci: u16,
    ethertype: u16,
}

// SAFETY: integers without padding.
unsafe impl Plain for Tag {}

/// The tags in a frame.
#[derive(Clone, Copy)]
pub struct Tags {
    /// How many.
    count: u32,
    /// TPID in network byte order, and TCI in the lower half, of the outermost.
    outermost: u32,
}

impl Tags {
    /// None in the frame.
    pub const NONE: Self = Self { count: 0, outermost: 0 };

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Which IP header stands behind the tags in the frame, the tags, and where the header starts.
/// `None`: there is no IP header.
#[inline(always)]
pub fn network_header(skb: &Skb, link_header: u32) -> Option<(u16, Tags, Offset)> {
    let mut tags = Tags::NONE;
    let mut l3 = Offset(link_header);
    let mut ethertype = match link_header {
        0 => skb.protocol(),
        _ => skb.load::<u16>(Offset(link_header - 2)).ok()?,
    };
    // Behind more tags than two, nobody expects a rule to look.
    for _ in 0..3 {
        if ethertype == ETHERTYPE_IPV4 || ethertype == ETHERTYPE_IPV6 {
            return Some((ethertype, tags, l3));
        }
        if link_header == 0 || (ethertype != TPID_C && ethertype != TPID_S) {
            return None;
        }
        let tag = skb.load::<Tag>(l3).ok()?;
        if tags.count == 0 {
            tags.outermost = u32::from(ethertype) << 16 | u32::from(u16::from_be(tag.tci));
        }
        tags.count += 1;
        l3 = l3 + TAG;
        ethertype = tag.ethertype;
    }
    None
}

/// The tag that has been taken off: TPID, or 0 if there was none, and TCI.
pub struct Lifted(u32, u32);

/// Takes the outermost tag off if there are any in the frame, so that none is left in it.
///
/// Returns the tag and the IP header's new place.
#[inline(always)]
pub fn lift(skb: &Skb, tags: Tags, l3: Offset) -> Result<(Lifted, Offset), Reason> {
    let (mut tpid, mut tci, mut l3) = (0, 0, l3);
    if tags.count != 0 {
        if tags.count > 1 || skb.has_vlan_tag_apart() {
            return Err(Reason::VlanDepth);
        }
        (tpid, tci) = (tags.outermost >> 16, tags.outermost & 0xFFFF);
        // The kernel takes off what it believes to be in the frame.
        if u32::from(skb.protocol()) != tpid {
            return Err(Reason::HelperError);
        }
        skb.vlan_pop()?;
        l3 = Offset(l3.0 - TAG);
    }
    Ok((Lifted(skb.forget(tpid), skb.forget(tci)), Offset(skb.forget(l3.0))))
}

impl Lifted {
    /// Puts the tag back.
    #[inline(always)]
    pub fn put_back(self, skb: &Skb) -> Done {
        let Self(tpid, tci) = self;
        if tpid == 0 { Ok(()) } else { skb.vlan_push(tpid as u16, tci as u16) }
    }
}
