//! IP headers of both families: the read of the first one in a frame, and what a rule changes.

use core::ptr;

use abi::{Reason, wire};

use super::checksum::Sum;
use super::ports::Ports;
use super::skb::{Done, Offset, Plain, Skb};
use super::vlan::{self, Tags};

/// EtherTypes (IANA), in network byte order.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// See [`ETHERTYPE_IPV4`].
pub const ETHERTYPE_IPV6: u16 = 0x86DD_u16.to_be();

/// The EtherType of `family`.
#[inline(always)]
pub fn ethertype(family: u32) -> u16 {
    if family == 0 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
}

/// Bytes of an Ethernet header (IEEE 802.3).
pub const ETHERNET: usize = 14;

/// Bytes of source and destination port, with which TCP and UDP headers begin.
pub const PORTS: usize = size_of::<Ports>();

/// What a hop-by-hop header with a jumbo payload begins with (RFC 2675, 2), TCP behind it: next
/// header, its own length (0, and so the number of a hop-by-hop header), option and its length.
const JUMBO: [u8; 4] = [wire::TCP, 0, 0xC2, 4];

/// Of IPv4's field for fragments, the offset (RFC 791, 3.1).
pub const FRAGMENT_OFFSET: u16 = 0x1FFF;
/// And the bit that more of them follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Bytes of the header of `family`, without IPv4's options: 20 or 40. Behind them
/// `bpf_skb_adjust_room` makes room.
#[inline(always)]
pub fn base_len(family: u32) -> u32 {
    20 + 20 * family
}

/// The version that a header of `family` names.
#[inline(always)]
pub fn version(family: u32) -> u32 {
    4 + 2 * family
}

/// An IPv4 header up to its addresses (RFC 791, 3.1). Numbers in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv4Head {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_len: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub check: u16,
}

/// An IPv6 header up to its addresses (RFC 8200, 3). Numbers in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv6Head {
    pub version_flow: u32,
    pub payload_len: u16,
    pub next_header: u8,
    pub hop_limit: u8,
}

// SAFETY: integers without padding.
unsafe impl Plain for Ipv4Head {}
// SAFETY: integers without padding.
unsafe impl Plain for Ipv6Head {}

/// What an IP header says, unchecked.
pub struct IpHeader {
    /// VLAN tags in front of it.
    pub tags: Tags,
    /// Where it begins.
    pub l3: Offset,
    /// Its first four bytes, as they lie there.
    pub first: u32,
    /// An [`abi::Family`] as a number.
    pub family: u32,
    /// Version field.
    pub version: u32,
    /// Bytes of the header, options included.
    pub ip_len: u32,
    /// Bytes of header and payload; 0 if it says 0, as that of merged packets may.
    pub total_len: u32,
    /// Protocol, or IPv6's next header.
    pub protocol: u8,
    /// IPv4's field for fragments.
    pub fragment: u16,
    /// The first four bytes behind the header; 0 if they are not there.
    pub ports: Ports,
    /// Both addresses.
    pub addresses: Addresses,
}

/// The addresses of a packet in network byte order; of IPv4 the last number, behind zeros.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Addresses {
    pub saddr: [u32; 4],
    pub daddr: [u32; 4],
}

// SAFETY: integers without padding.
unsafe impl Plain for Addresses {}

impl Addresses {
    /// Sum of all words of both.
    #[inline(always)]
    pub fn sum(&self) -> Sum {
        Sum::address(&self.saddr).add(Sum::address(&self.daddr))
    }

    /// Makes them those of `other`, with source and destination exchanged.
    #[inline(always)]
    pub fn set_exchanged(&mut self, other: &Self) {
        let words = |from: &[u32; 4], to: &mut [u32; 4]| {
            let [a, b, c, d] = from;
            let [e, f, g, h] = to;
            for (from, to) in [(a, e), (b, f), (c, g), (d, h)] {
                // SAFETY: references. Word by word: of more at once, the compiler makes copies on
                // the stack, and compares pointers, which not every verifier allows.
                unsafe { ptr::write_volatile(to, ptr::read_volatile(from)) };
            }
        };
        words(&other.saddr, &mut self.daddr);
        words(&other.daddr, &mut self.saddr);
    }
}

impl IpHeader {
    /// Reads the packet's own header. `false`: it is no IP packet.
    #[inline(always)]
    pub fn read(&mut self, skb: &Skb, link_header: u32) -> Result<bool, Reason> {
        if link_header as usize == ETHERNET && self.read_linear(skb) {
            return Ok(true);
        }
        let Some((ethertype, tags, l3)) = vlan::network_header(skb, link_header) else {
            return Ok(false);
        };
        self.tags = tags;
        let family = (ethertype == ETHERTYPE_IPV6).into();
        self.load(skb, family, l3).map_err(|_| Reason::TooShort)?;
        Ok(true)
    }

    /// As nearly all packets are: without tags, without options.
    #[inline(always)]
    fn read_linear(&mut self, skb: &Skb) -> bool {
        let Some(frame) = skb.linear::<{ ETHERNET + 20 + PORTS }>() else { return false };
        let ethertype = frame.load16::<{ ETHERNET - 2 }>();
        if ethertype == ETHERTYPE_IPV4 {
            let first = frame.load32::<ETHERNET>();
            self.first = first;
            let [version_ihl, _, len @ ..] = first.to_ne_bytes();
            if version_ihl != 0x45 {
                return false;
            }
            let [_, protocol, ..] = frame.load32::<{ ETHERNET + 8 }>().to_ne_bytes();
            (self.family, self.version, self.ip_len) = (0, 4, 20);
            self.total_len = u16::from_be_bytes(len).into();
            self.protocol = protocol;
            self.fragment = u16::from_be(frame.load16::<{ ETHERNET + 6 }>());
            self.ports = Ports::from_bytes(frame.load32::<{ ETHERNET + 20 }>());
            self.addresses.saddr = [0, 0, 0, frame.load32::<{ ETHERNET + 12 }>()];
            self.addresses.daddr = [0, 0, 0, frame.load32::<{ ETHERNET + 16 }>()];
        } else if ethertype == ETHERTYPE_IPV6 {
            let Some(frame) = skb.linear::<{ ETHERNET + 40 + PORTS }>() else { return false };
            self.first = frame.load32::<ETHERNET>();
            let [version, ..] = self.first.to_ne_bytes();
            let [len0, len1, next_header, _] = frame.load32::<{ ETHERNET + 4 }>().to_ne_bytes();
            if next_header == JUMBO[1] {
                return false;
            }
            (self.family, self.version, self.ip_len) = (1, u32::from(version >> 4), 40);
            self.total_len = ipv6_total_len(u16::from_be_bytes([len0, len1]));
            self.protocol = next_header;
            self.fragment = 0;
            self.ports = Ports::from_bytes(frame.load32::<{ ETHERNET + 40 }>());
            self.addresses.saddr = [
                frame.load32::<{ ETHERNET + 8 }>(),
                frame.load32::<{ ETHERNET + 12 }>(),
                frame.load32::<{ ETHERNET + 16 }>(),
                frame.load32::<{ ETHERNET + 20 }>(),
            ];
            self.addresses.daddr = [
                frame.load32::<{ ETHERNET + 24 }>(),
                frame.load32::<{ ETHERNET + 28 }>(),
                frame.load32::<{ ETHERNET + 32 }>(),
                frame.load32::<{ ETHERNET + 36 }>(),
            ];
        } else {
            return false;
        }
        (self.tags, self.l3) = (Tags::NONE, Offset(ETHERNET as u32));
        true
    }

    /// Reads the header of `family` at `l3`, with what is behind it.
    #[inline(always)]
    pub fn load(&mut self, skb: &Skb, family: u32, l3: Offset) -> Done {
        (self.l3, self.family) = (l3, family);
        self.first = skb.load::<u32>(l3)?;
        if family == 0 {
            let head = skb.load::<Ipv4Head>(l3)?;
            self.version = (head.version_ihl >> 4).into();
            self.ip_len = u32::from(head.version_ihl & 0xF) * 4;
            self.total_len = u16::from_be(head.total_len).into();
            self.protocol = head.protocol;
            self.fragment = u16::from_be(head.fragment);
            let [saddr, daddr] = skb.load::<[u32; 2]>(l3 + 12)?;
            self.addresses = Addresses { saddr: [0, 0, 0, saddr], daddr: [0, 0, 0, daddr] };
        } else {
            let head = skb.load::<Ipv6Head>(l3)?;
            (self.version, self.ip_len) = (u32::from_be(head.version_flow) >> 28, 40);
            self.total_len = ipv6_total_len(u16::from_be(head.payload_len));
            self.protocol = head.next_header;
            self.fragment = 0;
            skb.load_to(l3 + 8, &mut self.addresses)?;
            // Merged packets of more than 64 KiB say so in a hop-by-hop header that never leaves the
            // machine (BIG TCP, Linux 5.19).
            if head.next_header == JUMBO[1]
                && skb.is_segmented()
                && skb.load::<[u8; 4]>(l3 + 40).unwrap_or([0; 4]) == JUMBO
            {
                (self.ip_len, self.protocol) = (48, JUMBO[0]);
            }
        }
        self.ports = skb.load::<Ports>(l3 + self.ip_len).unwrap_or(Ports::NONE);
        Ok(())
    }
}

/// 0 stays 0: jumbograms (RFC 2675) and merged packets say so.
#[inline(always)]
fn ipv6_total_len(payload_len: u16) -> u32 {
    match payload_len {
        0 => 0,
        len => u32::from(len) + 40,
    }
}

/// Makes the packet under the header of `family` at `l3` longer by `growth` bytes, and names its
/// `protocol`, or IPv6's next header, anew; `None` leaves that.
///
/// IPv4's checksum is updated by the difference (RFC 1624): a header that arrived broken leaves as
/// broken.
#[inline(always)]
pub fn grow(skb: &Skb, family: u32, l3: Offset, growth: i32, protocol: Option<u8>) -> Done {
    let grown = |len: u16| (u16::from_be(len).wrapping_add(growth as u16)).to_be();
    if family == 0 {
        let mut head = skb.load::<Ipv4Head>(l3)?;
        let total_len = grown(head.total_len);
        let protocol = protocol.unwrap_or(head.protocol);
        let sum = Sum::behind(head.check)
            .minus(head.total_len)
            .plus(total_len)
            .minus(u16::from(head.protocol).to_be())
            .plus(u16::from(protocol).to_be());
        head.protocol = protocol;
        head.total_len = total_len;
        head.check = sum.checksum();
        skb.store(l3, &head)
    } else {
        let mut head = skb.load::<Ipv6Head>(l3)?;
        head.payload_len = grown(head.payload_len);
        head.next_header = protocol.unwrap_or(head.next_header);
        skb.store(l3, &head)
    }
}

/// Sets the destination address, in network byte order, in the header of `family` at `l3`. IPv4's
/// checksum is updated as [`grow`] does.
#[inline(always)]
pub fn set_daddr(skb: &Skb, family: u32, l3: Offset, daddr: &[u32; 4]) -> Done {
    if family == 0 {
        let [.., daddr] = daddr;
        let check = skb.load::<u16>(l3 + 10)?;
        let sum = Sum::behind(check).minus32(skb.load::<u32>(l3 + 16)?).plus32(*daddr);
        skb.store(l3 + 10, &sum.checksum())?;
        skb.store_from(l3 + 16, daddr)
    } else {
        skb.store_from(l3 + 24, daddr)
    }
}
