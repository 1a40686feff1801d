//! From a frame to a packet whose headers are all there and agree with each other.

use abi::{Config, Key, Reason, port_root, wire};

use super::checksum::Sum;
use super::skb::{Offset, Plain, Skb};
use super::vlan::{self, Tags};

/// EtherType of IPv4 (RFC 894), in network byte order.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();

/// An IPv4 header without its options (RFC 791, 3.1). Numbers in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    pub protocol: u8,
    check: u16,
    pub saddr: u32,
    pub daddr: u32,
}

/// Of the field for fragments, the offset (RFC 791, 3.1).
const FRAGMENT_OFFSET: u16 = 0x1FFF;
/// And the bit that more of them follow.
const MORE_FRAGMENTS: u16 = 0x2000;

/// Bytes of the header without options.
pub const IPV4_HEADER: u32 = 20;

/// Bytes of source and destination port, with which TCP and UDP headers begin.
const PORTS: u32 = 4;

const _: () = assert!(size_of::<Ipv4Header>() == IPV4_HEADER as usize);

// SAFETY: integers without padding.
unsafe impl Plain for Ipv4Header {}

impl Ipv4Header {
    /// Bytes of header and payload, as the header says.
    #[inline(always)]
    pub fn total_len(&self) -> u32 {
        u16::from_be(self.total_len).into()
    }

    /// Sets what a rule changes, and updates the checksum by the difference (RFC 1624): a header
    /// that arrived broken leaves as broken.
    #[inline(always)]
    pub fn rewrite(&mut self, protocol: u8, total_len: u32, daddr: u32) {
        let total_len = (total_len as u16).to_be();
        self.check = Sum::behind(self.check)
            .minus(self.total_len)
            .plus(total_len)
            .minus(u16::from(self.protocol).to_be())
            .plus(u16::from(protocol).to_be())
            .minus32(self.daddr)
            .plus32(daddr)
            .checksum();
        self.protocol = protocol;
        self.total_len = total_len;
        self.daddr = daddr;
    }
}

/// A TCP or UDP packet over IPv4, or a piece of one.
pub struct Packet {
    /// VLAN tags in the frame.
    pub tags: Tags,
    /// Start of the IPv4 header.
    pub l3: Offset,
    pub ip: Ipv4Header,
    /// Bytes of the IPv4 header, options included: 20 to 60.
    pub ip_len: u32,
    /// Bytes behind it: all of the TCP or UDP segment, or a piece.
    pub l4_len: u32,
    /// Not 0: it is a piece of a fragmented datagram.
    fragment: u32,
    /// 1: it is a piece that is not the first, and has no TCP or UDP header. Else 0.
    headless: u32,
    /// Source port in the upper half and destination port in the lower; 0 where there is no header.
    ports: u32,
}

impl Packet {
    /// `None`: it is neither TCP nor UDP over IPv4.
    #[inline(always)]
    pub fn parse(skb: &Skb, config: &Config) -> Result<Option<Self>, Reason> {
        let Some((tags, l3)) = vlan::network_header(skb, config.link_header) else {
            return Ok(None);
        };
        // However many tags there were, from here on it is one packet.
        let (tags, l3) = (tags.forget(skb), Offset(skb.forget(l3.0)));
        let Ok(mut ip) = skb.load::<Ipv4Header>(l3) else { return Err(Reason::TooShort) };
        if !wire::has_ports(ip.protocol) {
            return Ok(None);
        }
        ip.protocol = skb.forget(ip.protocol.into()) as u8;

        let ip_len = u32::from(ip.version_ihl & 0xF) * 4;
        let there = skb.len() - l3.0;
        let total_len = skb.forget(match skb.forget(ip.total_len()) {
            // Merged packets of more than 64 KiB say 0 (BIG TCP, Linux 6.3).
            0 if skb.is_segmented() => there,
            len => len,
        });
        if ip.version_ihl >> 4 != 4
            || ip_len < IPV4_HEADER
            || total_len < ip_len
            || total_len > there
        {
            return Err(Reason::BadLength);
        }

        let fragment = u16::from_be(ip.fragment);
        let (mut headless, mut ports) = (1, 0);
        if skb.forget((fragment & FRAGMENT_OFFSET).into()) == 0 {
            // The first piece of a datagram may end right behind the ports.
            let enough = match fragment & MORE_FRAGMENTS {
                0 => wire::header_len(ip.protocol),
                _ => PORTS,
            };
            if total_len - ip_len < enough {
                return Err(Reason::TooShort);
            }
            let Ok(loaded) = skb.load::<u32>(l3 + ip_len) else { return Err(Reason::TooShort) };
            (headless, ports) = (0, u32::from_be(loaded));
        }
        Ok(Some(Self {
            tags,
            l3,
            ip,
            ip_len,
            l4_len: total_len - ip_len,
            fragment: skb.forget((fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS)).into()),
            headless: skb.forget(headless),
            ports: skb.forget(ports),
        }))
    }

    /// Start of the TCP or UDP header.
    #[inline(always)]
    pub fn l4(&self) -> Offset {
        self.l3 + self.ip_len
    }

    /// Bytes of options in the IPv4 header: 0 to 40.
    #[inline(always)]
    pub fn options_len(&self) -> u32 {
        self.ip_len - IPV4_HEADER
    }

    /// Bytes from the IPv4 header on.
    #[inline(always)]
    pub fn total_len(&self) -> u32 {
        self.ip_len + self.l4_len
    }

    /// It has a TCP or UDP header.
    #[inline(always)]
    pub fn has_l4_header(&self) -> bool {
        self.headless == 0
    }

    /// It is a piece of a fragmented datagram.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment != 0
    }

    /// What it is looked up by.
    #[inline(always)]
    pub fn key(&self) -> Key {
        Key {
            saddr: u32::from_be(self.ip.saddr),
            daddr: u32::from_be(self.ip.daddr),
            port_root: port_root(self.ip.protocol, self.headless),
            sport: (self.ports >> 16) as u16,
            dport: self.ports as u16,
        }
    }

    /// Only whole packets, one by one, can get a header or lose one.
    #[inline(always)]
    pub fn check_whole(&self, skb: &Skb) -> Result<(), Reason> {
        if self.is_fragment() {
            return Err(Reason::Fragment);
        }
        if skb.is_segmented() {
            return Err(Reason::Segmented);
        }
        Ok(())
    }
}

/// Whether the TCP or UDP header at `l4` describes a segment of `len` bytes.
#[inline(always)]
pub fn is_segment(skb: &Skb, l4: Offset, protocol: u8, len: u32) -> Result<bool, Reason> {
    if skb.forget(protocol.into()) as u8 == wire::UDP {
        let said = u16::from_be(skb.load::<u16>(l4 + 4)?);
        return Ok(u32::from(said) == len);
    }
    let data_offset = tcp_data_offset(skb, l4)?;
    Ok(wire::TCP_HEADER <= data_offset && data_offset <= len)
}

/// Bytes of the TCP header at `l4`, options included.
#[inline(always)]
pub fn tcp_data_offset(skb: &Skb, l4: Offset) -> Result<u32, Reason> {
    let offset_flags = u16::from_be(skb.load::<u16>(l4 + 12)?);
    Ok(u32::from(offset_flags >> 12) * 4)
}
