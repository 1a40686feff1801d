//! The funnel header on the wire, as the original sfunnel defined it.
//!
//! It stands between the IP header and the packet's own TCP or UDP header. The inner checksum is
//! kept as if both addresses were 0.0.0.0 (or ::), so that NAT on the way need not be undone.

/// IP protocol number of TCP (IANA).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (IANA).
pub const UDP: u8 = 17;
/// IP protocol number of ICMP (IANA).
pub const ICMP: u8 = 1;
/// IP protocol number of ICMPv6 (IANA).
pub const ICMPV6: u8 = 58;

/// Bytes of a TCP header without options (RFC 9293, 3.1), and so of a TCP funnel header.
pub const TCP_HEADER: u32 = 20;
/// Bytes of a UDP header (RFC 768), and so of a UDP funnel header.
pub const UDP_HEADER: u32 = 8;

/// Sequence number of a TCP funnel header.
pub const SEQUENCE: u32 = 0xCAFE_BABE;
/// Acknowledgement number of a TCP funnel header.
pub const ACKNOWLEDGEMENT: u32 = 0xBABE_CAFE;
/// Data offset of a TCP funnel header, five 32-bit words, as its byte 12 has it.
pub const DATA_OFFSET: u8 = 0x50;
/// Flags of a TCP funnel header as its byte 13 has them, unless a rule says otherwise: SYN alone.
pub const FLAGS: u8 = 0x02;
/// Window of a TCP funnel header.
///
/// The original has 1,024 there, and neither end looks at it. Connection tracking does: the sequence
/// number of a funnel header never changes, so with a small window, packets that are shorter than an
/// earlier one by more than the window seem to end below it. Kernels before 6.x take them for
/// invalid, and NAT leaves them out (`tcp_in_window` in net/netfilter/nf_conntrack_proto_tcp.c).
pub const WINDOW: u16 = 65535;

/// Whether `protocol` is TCP or UDP.
pub const fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

/// Bytes of the header of `protocol`, which is TCP or UDP, without options.
///
/// Worked out from the lowest bit, in which the two numbers differ: the verifier follows a number
/// more easily than a branch.
pub const fn header_len(protocol: u8) -> u32 {
    TCP_HEADER - (TCP_HEADER - UDP_HEADER) * udp_bit(protocol)
}

/// Bytes from the start of the header of `protocol`, which is TCP or UDP, to its checksum.
pub const fn checksum_offset(protocol: u8) -> u32 {
    16 - 10 * udp_bit(protocol)
}

/// 1 for UDP, 0 for TCP.
pub const fn udp_bit(protocol: u8) -> u32 {
    (protocol & 1) as u32
}

const _: () = {
    assert!(header_len(TCP) == TCP_HEADER && header_len(UDP) == UDP_HEADER);
    assert!(checksum_offset(TCP) == 16 && checksum_offset(UDP) == 6);
};
