//! From an IP header to a packet whose headers are all there and agree with each other.

use core::ptr;

use abi::{Config, Key, Reason, port_root, wire};

use super::checksum::Sum;
use super::icmp;
use super::ip::{Addresses, FRAGMENT_OFFSET, IpHeader, MORE_FRAGMENTS, PORTS, base_len, version};
use super::ports::Ports;
use super::skb::{Offset, Skb};

/// A TCP or UDP packet, or a piece of one; or an ICMP error that quotes one.
pub struct Packet {
    /// Its IP header. Of an ICMP error, protocol, ports and addresses are those of the quoted
    /// packet with its ends exchanged, as a packet of the other direction would have them.
    pub ip: IpHeader,
    /// Bytes behind the IP header: all of the TCP or UDP segment, or a piece; or the ICMP message.
    pub l4_len: u32,
    /// 1: it is a piece of a fragmented datagram that is not the first, and has no TCP or UDP
    /// header. Else 0.
    headless: u32,
    /// Bytes from the IP header to the quoted one; 0: this is no ICMP error.
    pub quote: u32,
}

impl Packet {
    /// `false`: it is neither TCP nor UDP over IP, nor an error about such a packet.
    #[inline(always)]
    pub fn parse(&mut self, skb: &Skb, config: &Config) -> Result<bool, Reason> {
        if !self.ip.read(skb, config.link_header)? {
            return Ok(false);
        }
        let ip = &skb.again(self).ip;
        let l4_len = if wire::has_ports(ip.protocol) {
            l4_len(skb, ip)?
        } else if icmp::is_icmp(ip) {
            return icmp::parse(self, skb);
        } else if icmp::hides_a_header(ip) {
            return Err(Reason::ExtensionHeader);
        } else {
            return Ok(false);
        };
        let mut headless = 1;
        if ip.fragment & FRAGMENT_OFFSET == 0 {
            // The first piece of a datagram may end right behind the ports.
            let enough = match ip.fragment & MORE_FRAGMENTS {
                0 => wire::header_len(ip.protocol),
                _ => PORTS as u32,
            };
            if l4_len < enough {
                return Err(Reason::TooShort);
            }
            headless = 0;
        }
        if headless != 0 {
            self.ip.ports = Ports::NONE;
        }
        (self.l4_len, self.headless, self.quote) = (l4_len, headless, 0);
        Ok(true)
    }

    /// Makes it an ICMP error of `l4_len` bytes that quotes `quoted`.
    #[inline(always)]
    pub fn set_quote(&mut self, l4_len: u32, quoted: &IpHeader) {
        self.ip.addresses.set_exchanged(&quoted.addresses);
        self.ip.protocol = quoted.protocol;
        self.ip.ports = quoted.ports.exchanged();
        self.ip.fragment = 0;
        (self.l4_len, self.headless, self.quote) = (l4_len, 0, quoted.l3.0 - self.ip.l3.0);
    }

    /// What it is looked up by.
    #[inline(always)]
    pub fn key(&self) -> Key<'_> {
        let Addresses { saddr, daddr } = &self.ip.addresses;
        Key {
            family: self.ip.family,
            saddr: bytes(saddr),
            daddr: bytes(daddr),
            port_root: port_root(self.ip.protocol, self.headless),
            sport: self.ip.ports.sport.to_ne_bytes(),
            dport: self.ip.ports.dport.to_ne_bytes(),
        }
    }

    /// Start of the TCP or UDP header, or of the ICMP message.
    #[inline(always)]
    pub fn l4(&self) -> Offset {
        self.ip.l3 + self.ip.ip_len
    }

    /// Bytes of the IP header without IPv4's options.
    #[inline(always)]
    pub fn base_len(&self) -> u32 {
        base_len(self.ip.family)
    }

    /// Bytes of options in the IPv4 header: 0 to 40.
    #[inline(always)]
    pub fn options_len(&self) -> u32 {
        self.ip.ip_len - self.base_len()
    }

    /// Bytes from the IP header on.
    #[inline(always)]
    pub fn total_len(&self) -> u32 {
        self.ip.ip_len + self.l4_len
    }

    /// It has a TCP or UDP header.
    #[inline(always)]
    pub fn has_l4_header(&self) -> bool {
        self.headless == 0
    }

    /// It is a piece of a fragmented datagram.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.ip.fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0
    }

    /// Sum of the pseudo-header of its TCP or UDP segment.
    #[inline(always)]
    pub fn pseudo_header(&self) -> Sum {
        Sum::pseudo_header(self.ip.addresses.sum(), self.ip.protocol, self.l4_len)
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

    /// Place of the checksum in its TCP or UDP header, if all of that header is in this packet.
    #[inline(always)]
    pub fn checksum_at(&self) -> Result<Offset, Reason> {
        if self.l4_len < wire::header_len(self.ip.protocol) {
            return Err(Reason::TooShort);
        }
        Ok(self.l4() + wire::checksum_offset(self.ip.protocol))
    }

    /// Whether its TCP or UDP checksum, `check` at `at`, is yet to be finished by the kernel or the
    /// network card.
    #[inline(always)]
    pub fn is_pending(&self, skb: &Skb, at: Offset, check: u16) -> Result<bool, Reason> {
        // A pending checksum holds the pseudo-header's sum; of the finished ones, few do by chance.
        // Of what is segmented, the length in it need not be this one.
        Ok((skb.is_segmented() || check == self.pseudo_header().fold())
            && skb.is_checksum_pending(at, check)?)
    }
}

/// An address as its bytes.
#[inline(always)]
fn bytes(address: &[u32; 4]) -> &[u8; 16] {
    // SAFETY: 16 bytes, and any of them is a u8.
    unsafe { &*ptr::from_ref(address).cast() }
}

/// Bytes behind the header `ip` of the frame in hand.
#[inline(always)]
pub fn l4_len(skb: &Skb, ip: &IpHeader) -> Result<u32, Reason> {
    let there = skb.len() - ip.l3.0;
    let total_len = match ip.total_len {
        // Merged packets of more than 64 KiB say 0 (BIG TCP, Linux 6.3).
        0 if skb.is_segmented() => there,
        len => len,
    };
    if ip.version != version(ip.family)
        || ip.ip_len < base_len(ip.family)
        || total_len < ip.ip_len
        || total_len > there
    {
        return Err(Reason::BadLength);
    }
    Ok(total_len - ip.ip_len)
}

/// Whether the TCP or UDP header at `l4` describes a segment of `len` bytes.
#[inline(always)]
pub fn is_segment(skb: &Skb, l4: Offset, protocol: u8, len: u32) -> Result<bool, Reason> {
    if protocol == wire::UDP {
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
