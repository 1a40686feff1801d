//! An independent model of the funnel, in plain Rust.
//!
//! It shares no code and no constants with the program: every header is written and every checksum
//! summed up from scratch, as RFC 791, RFC 8200, RFC 768, RFC 9293, RFC 792, RFC 4443 and the wire
//! format say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers (IANA).
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const ICMP: u8 = 1;
/// See [`TCP`].
pub const ICMPV6: u8 = 58;

/// An IP packet. Its length fields and IPv4's header checksum are worked out when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Identification, of IPv4 alone.
    pub id: u16,
    /// Flags and fragment offset, as the field has them; of IPv4 alone.
    pub fragment: u16,
    /// Flow label, of IPv6 alone.
    pub flow: u32,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Protocol of `segment`, or next header.
    pub protocol: u8,
    /// Source address. Both have the packet's family.
    pub saddr: IpAddr,
    /// Destination address.
    pub daddr: IpAddr,
    /// Options, a multiple of four bytes; of IPv4 alone.
    pub options: Vec<u8>,
    /// Everything behind the IP header.
    pub segment: Vec<u8>,
}

impl Packet {
    /// The bytes on the wire, from the IP header on.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = match (self.saddr, self.daddr) {
            (IpAddr::V4(saddr), IpAddr::V4(daddr)) => self.ipv4_header(saddr, daddr),
            (IpAddr::V6(saddr), IpAddr::V6(daddr)) => self.ipv6_header(saddr, daddr),
            _ => panic!("a packet has one family: {self:?}"),
        };
        bytes.extend(&self.segment);
        bytes
    }

    fn ipv4_header(&self, saddr: Ipv4Addr, daddr: Ipv4Addr) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4) && self.options.len() <= 40);
        let header_len = 20 + self.options.len();
        let total_len =
            u16::try_from(header_len + self.segment.len()).expect("fits in an IPv4 packet");
        let mut bytes = vec![0x40 | (header_len / 4) as u8, self.tos];
        bytes.extend(total_len.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(saddr.octets());
        bytes.extend(daddr.octets());
        bytes.extend(&self.options);
        let check = !sum(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    fn ipv6_header(&self, saddr: Ipv6Addr, daddr: Ipv6Addr) -> Vec<u8> {
        let payload_len = u16::try_from(self.segment.len()).expect("fits in an IPv6 packet");
        let first = 6 << 28 | u32::from(self.tos) << 20 | self.flow;
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend(payload_len.to_be_bytes());
        bytes.extend([self.protocol, self.ttl]);
        bytes.extend(saddr.octets());
        bytes.extend(daddr.octets());
        bytes
    }

    /// Reads a packet and checks its lengths and, of IPv4, its header checksum.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) if bytes.len() >= 20 => Self::read_ipv4(bytes),
            Some(6) if bytes.len() >= 40 => Self::read_ipv6(bytes),
            _ => Err("no IP header".into()),
        }
    }

    fn read_ipv4(bytes: &[u8]) -> Result<Self, String> {
        let header_len = usize::from(bytes[0] & 15) * 4;
        let total_len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if header_len < 20 || total_len < header_len || total_len > bytes.len() {
            return Err(format!("header {header_len}, total {total_len}, there {}", bytes.len()));
        }
        if sum(&bytes[..header_len]) != 0xFFFF {
            return Err("header checksum is wrong".into());
        }
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let address =
            |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        Ok(Self {
            tos: bytes[1],
            id: word(4),
            fragment: word(6),
            flow: 0,
            ttl: bytes[8],
            protocol: bytes[9],
            saddr: address(12).into(),
            daddr: address(16).into(),
            options: bytes[20..header_len].to_vec(),
            segment: bytes[header_len..total_len].to_vec(),
        })
    }

    fn read_ipv6(bytes: &[u8]) -> Result<Self, String> {
        let first = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let total_len = 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        if total_len > bytes.len() {
            return Err(format!("total {total_len}, there {}", bytes.len()));
        }
        let address = |at: usize| {
            let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("16 bytes");
            IpAddr::from(octets)
        };
        Ok(Self {
            tos: (first >> 20) as u8,
            id: 0,
            fragment: 0,
            flow: first & 0xF_FFFF,
            ttl: bytes[7],
            protocol: bytes[6],
            saddr: address(8),
            daddr: address(24),
            options: Vec::new(),
            segment: bytes[40..total_len].to_vec(),
        })
    }

    /// It is an IPv6 packet.
    pub fn is_ipv6(&self) -> bool {
        self.saddr.is_ipv6()
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        let word = |at: usize| u16::from_be_bytes([self.segment[at], self.segment[at + 1]]);
        (word(0), word(2))
    }

    /// Sets those that are given. The checksum stays.
    pub fn set_ports(&mut self, sport: Option<u16>, dport: Option<u16>) {
        for (at, port) in [(0, sport), (2, dport)] {
            if let Some(port) = port {
                self.segment[at..at + 2].copy_from_slice(&port.to_be_bytes());
            }
        }
    }

    /// The checksum field of the TCP or UDP header.
    pub fn check(&self) -> u16 {
        let at = check_at(self.protocol);
        u16::from_be_bytes([self.segment[at], self.segment[at + 1]])
    }

    /// Sets that field.
    pub fn set_check(&mut self, check: u16) {
        let at = check_at(self.protocol);
        self.segment[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }

    /// UDP without a checksum.
    pub fn lacks_check(&self) -> bool {
        self.protocol == UDP && self.check() == 0
    }

    /// The checksum that the segment should have between `saddr` and `daddr`.
    pub fn right_check(&self, saddr: IpAddr, daddr: IpAddr) -> u16 {
        let mut segment = self.segment.clone();
        let at = check_at(self.protocol);
        segment[at..at + 2].fill(0);
        checksum(saddr, daddr, self.protocol, &segment)
    }

    /// What the checksum field holds while the checksum is pending: the sum of the pseudo-header
    /// alone, between `saddr` and `daddr`.
    pub fn pending_check(&self, saddr: IpAddr, daddr: IpAddr) -> u16 {
        // The complement of the checksum of nothing but zeros.
        let segment = vec![0; self.segment.len()];
        !checksum(saddr, daddr, self.protocol, &segment)
    }

    /// Whether the checksum of the TCP, UDP or ICMP header is right.
    pub fn check_is_right(&self) -> bool {
        self.check() == self.right_check(self.saddr, self.daddr)
    }

    /// Sets the right checksum.
    pub fn seal(mut self) -> Self {
        let check = self.right_check(self.saddr, self.daddr);
        self.set_check(check);
        self
    }

    /// Sets the right checksum, unless the sender had left it out.
    fn seal_again(self) -> Self {
        if self.lacks_check() { self } else { self.seal() }
    }
}

fn check_at(protocol: u8) -> usize {
    match protocol {
        UDP => 6,
        ICMP | ICMPV6 => 2,
        _ => 16,
    }
}

/// Ones' complement sum of big-endian words, folded to 16 bits (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => unreachable!("chunks of two"),
    });
    let mut sum: u64 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// Checksum of a segment whose checksum field is 0.
fn checksum(saddr: IpAddr, daddr: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(40 + segment.len());
    match (saddr, daddr) {
        // ICMP has no pseudo-header in IPv4, and has one in IPv6.
        (IpAddr::V4(_), IpAddr::V4(_)) if protocol == ICMP => {}
        (IpAddr::V4(saddr), IpAddr::V4(daddr)) => {
            bytes.extend(saddr.octets());
            bytes.extend(daddr.octets());
            bytes.extend([0, protocol]);
            bytes.extend((segment.len() as u16).to_be_bytes());
        }
        (IpAddr::V6(saddr), IpAddr::V6(daddr)) => {
            bytes.extend(saddr.octets());
            bytes.extend(daddr.octets());
            bytes.extend((segment.len() as u32).to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
        }
        _ => panic!("{saddr} and {daddr} are of two families"),
    }
    bytes.extend(segment);
    match !sum(&bytes) {
        // RFC 768: no checksum is 0, so this one is sent as all ones.
        0 if protocol == UDP => 0xFFFF,
        check => check,
    }
}

/// The address that stands for both in an inner checksum: 0.0.0.0 or ::.
fn unspecified(packet: &Packet) -> IpAddr {
    if packet.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// A header to push.
#[derive(Clone, Copy, Debug)]
pub struct Funnel {
    /// TCP or UDP.
    pub through: u8,
    /// Source port of the header.
    pub sport: u16,
    /// Destination port of the header.
    pub dport: u16,
    /// Flags of a TCP header.
    pub flags: u8,
    /// Window of a TCP header.
    pub window: u16,
    /// New source port of the inner header.
    pub inner_sport: Option<u16>,
    /// New destination port of the inner header.
    pub inner_dport: Option<u16>,
}

impl Funnel {
    /// The window that the original has in a TCP header.
    pub const ORIGINALS_WINDOW: u16 = 1024;

    /// A header as the original pushes it, but for the window.
    pub const fn new(through: u8, sport: u16, dport: u16) -> Self {
        const SYN: u8 = 2;
        let (flags, window) = (SYN, 65535);
        Self { through, sport, dport, flags, window, inner_sport: None, inner_dport: None }
    }

    /// Bytes of the header.
    pub const fn header_len(&self) -> u16 {
        header_len(self.through)
    }
}

/// Bytes of a funnel header.
const fn header_len(through: u8) -> u16 {
    if through == TCP { 20 } else { 8 }
}

/// Pushes a funnel header in front of a segment whose checksum is right, pending or, with UDP, left
/// out. What a SYN says of the largest segment is reduced by the header.
pub fn funnel(packet: &Packet, funnel: Funnel) -> Packet {
    let mut inner = packet.clone();
    inner.set_ports(funnel.inner_sport, funnel.inner_dport);
    if let Some(at) = mss_at(&inner) {
        let mss = u16::from_be_bytes([inner.segment[at], inner.segment[at + 1]]);
        if let Some(less @ 1..) = mss.checked_sub(funnel.header_len()) {
            inner.segment[at..at + 2].copy_from_slice(&less.to_be_bytes());
        }
    }
    let zero = unspecified(packet);
    inner.set_check(inner.right_check(zero, zero));

    let mut segment = Vec::new();
    segment.extend(funnel.sport.to_be_bytes());
    segment.extend(funnel.dport.to_be_bytes());
    if funnel.through == TCP {
        segment.extend(0xCAFEBABE_u32.to_be_bytes());
        segment.extend(0xBABECAFE_u32.to_be_bytes());
        // Five words, flags; checksum; no urgent data.
        segment.extend([0x50, funnel.flags]);
        segment.extend(funnel.window.to_be_bytes());
        segment.extend([0, 0, 0, 0]);
    } else {
        segment.extend(((8 + inner.segment.len()) as u16).to_be_bytes());
        segment.extend([0, 0]);
    }
    segment.extend(&inner.segment);
    Packet { protocol: funnel.through, segment, ..inner }.seal()
}

/// Where a SYN has the value of its MSS option (RFC 9293, 3.2), if that is among the first eight.
fn mss_at(packet: &Packet) -> Option<usize> {
    if packet.protocol != TCP || packet.segment[13] & 2 == 0 {
        return None;
    }
    let header_len = usize::from(packet.segment[12] >> 4) * 4;
    let options = &packet.segment[20..header_len];
    let mut at = 0;
    for _ in 0..8 {
        let &[kind, len] = options.get(at..)?.first_chunk()?;
        match kind {
            0 => return None,
            1 => at += 1,
            2 if len == 4 && at + 4 <= options.len() => return Some(20 + at + 2),
            _ if len == 0 => return None,
            _ => at += usize::from(len),
        }
    }
    None
}

/// Removes a funnel header in front of a segment of `protocol`.
pub fn unfunnel(packet: &Packet, protocol: u8) -> Packet {
    let header = usize::from(header_len(packet.protocol));
    let segment = packet.segment[header..].to_vec();
    Packet { protocol, segment, ..packet.clone() }.seal()
}

/// Translates ports in place, by what is added to them modulo 2^16.
pub fn translate(packet: &Packet, sport: u16, dport: u16) -> Packet {
    let mut packet = packet.clone();
    let (old_sport, old_dport) = packet.ports();
    packet.set_ports(Some(old_sport.wrapping_add(sport)), Some(old_dport.wrapping_add(dport)));
    packet.seal_again()
}

/// Sets the destination address.
pub fn dnat(packet: &Packet, daddr: IpAddr) -> Packet {
    Packet { daddr, ..packet.clone() }.seal_again()
}

/// What a router does that translates addresses: it sets them and updates the outermost checksum.
pub fn nat(packet: &Packet, saddr: IpAddr, daddr: IpAddr) -> Packet {
    let mut packet = Packet { saddr, daddr, ..packet.clone() };
    packet.ttl -= 1;
    packet.seal_again()
}

/// An ICMP error.
#[derive(Clone, Copy, Debug)]
pub struct IcmpError {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum.
    pub rest: u32,
}

impl IcmpError {
    /// "Fragmentation needed", or IPv6's "packet too big".
    pub fn too_big(ipv6: bool, mtu: u16) -> Self {
        let (kind, code) = if ipv6 { (2, 0) } else { (3, 4) };
        Self { kind, code, rest: mtu.into() }
    }

    /// The packet that tells `about`'s sender: the first `quoted` bytes of it, from its IP header
    /// on, behind an ICMP header. `by` sends it.
    pub fn answer(self, about: &Packet, quoted: usize, by: IpAddr) -> Packet {
        let mut segment = vec![self.kind, self.code, 0, 0];
        segment.extend(self.rest.to_be_bytes());
        segment.extend(about.write().iter().take(quoted));
        let ipv6 = about.is_ipv6();
        Packet {
            // Internetwork control, don't fragment.
            tos: if ipv6 { 0 } else { 0xC0 },
            id: 0,
            fragment: if ipv6 { 0 } else { 0x4000 },
            flow: 0,
            ttl: 64,
            protocol: if ipv6 { ICMPV6 } else { ICMP },
            saddr: by,
            daddr: about.saddr,
            options: Vec::new(),
            segment,
        }
        .seal()
    }
}
