//! An independent model of the funnel, in plain Rust.
//!
//! It shares no code and no constants with the program: every header is written and every checksum
//! summed up from scratch, as RFC 791, RFC 768, RFC 9293 and the wire format say.

use std::net::Ipv4Addr;

/// IP protocol numbers (IANA).
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;

/// An IPv4 packet. Its length fields and header checksum are worked out when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Type of service.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, as the field has them.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of `segment`.
    pub protocol: u8,
    /// Source address.
    pub saddr: Ipv4Addr,
    /// Destination address.
    pub daddr: Ipv4Addr,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Everything behind the IP header.
    pub segment: Vec<u8>,
}

impl Packet {
    /// The bytes on the wire, from the IP header on.
    pub fn write(&self) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4) && self.options.len() <= 40);
        let header_len = 20 + self.options.len();
        let total_len =
            u16::try_from(header_len + self.segment.len()).expect("fits in an IPv4 packet");
        let mut bytes = vec![0x40 | (header_len / 4) as u8, self.tos];
        bytes.extend(total_len.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.saddr.octets());
        bytes.extend(self.daddr.octets());
        bytes.extend(&self.options);
        let check = !sum(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes.extend(&self.segment);
        bytes
    }

    /// Reads a packet and checks its lengths and its header checksum.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < 20 || bytes[0] >> 4 != 4 {
            return Err("no IPv4 header".into());
        }
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
            ttl: bytes[8],
            protocol: bytes[9],
            saddr: address(12),
            daddr: address(16),
            options: bytes[20..header_len].to_vec(),
            segment: bytes[header_len..total_len].to_vec(),
        })
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        let word = |at: usize| u16::from_be_bytes([self.segment[at], self.segment[at + 1]]);
        (word(0), word(2))
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

    /// The checksum that the segment should have between `saddr` and `daddr`.
    pub fn right_check(&self, saddr: Ipv4Addr, daddr: Ipv4Addr) -> u16 {
        let mut segment = self.segment.clone();
        let at = check_at(self.protocol);
        segment[at..at + 2].fill(0);
        checksum(saddr, daddr, self.protocol, &segment)
    }

    /// What the checksum field holds while the checksum is pending: the sum of the pseudo-header
    /// alone, between `saddr` and `daddr`.
    pub fn pending_check(&self, saddr: Ipv4Addr, daddr: Ipv4Addr) -> u16 {
        // The complement of the checksum of nothing but zeros.
        let segment = vec![0; self.segment.len()];
        !checksum(saddr, daddr, self.protocol, &segment)
    }

    /// Whether the TCP or UDP checksum is right.
    pub fn check_is_right(&self) -> bool {
        self.check() == self.right_check(self.saddr, self.daddr)
    }

    /// Sets the right checksum.
    pub fn seal(mut self) -> Self {
        let check = self.right_check(self.saddr, self.daddr);
        self.set_check(check);
        self
    }
}

fn check_at(protocol: u8) -> usize {
    if protocol == UDP { 6 } else { 16 }
}

/// Ones' complement sum of big-endian words, folded to 16 bits (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
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

/// TCP or UDP checksum of a segment whose checksum field is 0.
fn checksum(saddr: Ipv4Addr, daddr: Ipv4Addr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(12 + segment.len());
    bytes.extend(saddr.octets());
    bytes.extend(daddr.octets());
    bytes.extend([0, protocol]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(segment);
    match !sum(&bytes) {
        // RFC 768: no checksum is 0, so this one is sent as all ones.
        0 if protocol == UDP => 0xFFFF,
        check => check,
    }
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
}

/// Pushes a funnel header in front of a segment whose checksum is right, pending or, with UDP, left
/// out.
pub fn funnel(packet: &Packet, funnel: Funnel) -> Packet {
    let mut inner = packet.clone();
    let zero = Ipv4Addr::UNSPECIFIED;
    inner.set_check(packet.right_check(zero, zero));

    let mut segment = Vec::new();
    segment.extend(funnel.sport.to_be_bytes());
    segment.extend(funnel.dport.to_be_bytes());
    if funnel.through == TCP {
        segment.extend(0xCAFEBABE_u32.to_be_bytes());
        segment.extend(0xBABECAFE_u32.to_be_bytes());
        // Five words, SYN; window 1024; checksum; no urgent data.
        segment.extend([0x50, 0x02, 0x04, 0x00, 0, 0, 0, 0]);
    } else {
        segment.extend(((8 + inner.segment.len()) as u16).to_be_bytes());
        segment.extend([0, 0]);
    }
    segment.extend(&inner.segment);
    Packet { protocol: funnel.through, segment, ..inner }.seal()
}

/// Removes a funnel header in front of a segment of `protocol`.
pub fn unfunnel(packet: &Packet, protocol: u8) -> Packet {
    let header = if packet.protocol == TCP { 20 } else { 8 };
    let segment = packet.segment[header..].to_vec();
    Packet { protocol, segment, ..packet.clone() }.seal()
}

/// What a router does that translates addresses: it sets them and updates the outermost checksum.
pub fn nat(packet: &Packet, saddr: Ipv4Addr, daddr: Ipv4Addr) -> Packet {
    let mut packet = Packet { saddr, daddr, ..packet.clone() };
    packet.ttl -= 1;
    packet.seal()
}
