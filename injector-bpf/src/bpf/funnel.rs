//! Pushes a funnel header between the IP header and the packet's own TCP or UDP header.
//!
//! ```text
//! before   [ip][options]                [l4 ...]
//! room     [ip]<-- room -->[options]    [l4 ...]
//! after    [ip][options][funnel header] [l4 ...]
//! ```
//!
//! The inner checksum is rewritten as if both addresses were 0.0.0.0 (or ::). A segment with a right
//! checksum then sums up to the complement of its pseudo-header, whatever it carries; so the funnel
//! header's checksum follows from headers alone.

use abi::{Config, Reason, RuleEntry, wire};

use super::checksum::Sum;
use super::ip;
use super::mss::Clamp;
use super::packet::{Packet, is_segment};
use super::ports::Ports;
use super::rewrite::{Rewrite, set_daddr};
use super::skb::{Done, MAX_SUM, Offset, Plain, Refused, Saved, Skb};
use super::too_big;

/// A funnel header that is TCP. Numbers in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
struct TcpFunnel {
    sport: u16,
    dport: u16,
    sequence: u32,
    acknowledgement: u32,
    data_offset: u8,
    flags: u8,
    window: u16,
    check: u16,
    urgent: u16,
}

/// A funnel header that is UDP. Numbers in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
struct UdpFunnel {
    sport: u16,
    dport: u16,
    len: u16,
    check: u16,
}

const _: () = {
    assert!(size_of::<TcpFunnel>() == wire::TCP_HEADER as usize);
    assert!(size_of::<UdpFunnel>() == wire::UDP_HEADER as usize);
};

// SAFETY: integers without padding.
unsafe impl Plain for TcpFunnel {}
// SAFETY: integers without padding.
unsafe impl Plain for UdpFunnel {}

/// Carries out a `funnel` rule.
#[inline(always)]
pub fn funnel(skb: &Skb, packet: &Packet, rule: &RuleEntry, config: &Config) -> Result<(), Reason> {
    packet.check_whole(skb)?;
    if !is_segment(skb, packet.l4(), packet.ip.protocol, packet.l4_len)? {
        return Err(Reason::BadLength);
    }
    let packet = skb.again(packet);
    let header_len = wire::header_len(rule.protocol);
    let total_len = packet.total_len() + header_len;
    // IPv6 does not count its own header.
    if total_len - 40 * packet.ip.family > u32::from(u16::MAX) {
        return Err(Reason::NoRoom);
    }
    if config.mtu != 0 && total_len > config.mtu {
        too_big::answer(skb, packet, config, config.mtu - header_len)?;
        return Err(Reason::TooBig);
    }

    let clamp = Clamp::look(skb, packet, header_len)?;
    let inner = Inner::look(skb, skb.again(packet), rule, clamp)?;
    let rewrite = Rewrite::begin(skb, packet)?;
    let (packet, l3) = (skb.again(packet), rewrite.l3);
    let resized = if inner.pending {
        make_room_unpending(skb, packet, l3, header_len)
    } else {
        skb.adjust_room(header_len as i32).map_err(Reason::from)
    };
    rewrite.resized(packet, resized)?;
    let packet = skb.again(packet);
    rewrite.finish(skb, write(skb, packet, rule, l3, header_len, &inner))
}

/// What becomes of the packet's own header.
struct Inner {
    ports: Ports,
    /// The checksum over a pseudo-header with addresses of 0.
    check: u16,
    /// The kernel or the network card was to finish it.
    pending: bool,
    clamp: Clamp,
}

impl Inner {
    #[inline(always)]
    fn look(skb: &Skb, packet: &Packet, rule: &RuleEntry, clamp: Clamp) -> Result<Self, Reason> {
        let protocol = packet.ip.protocol;
        let at = packet.l4() + wire::checksum_offset(protocol);
        let check = skb.load::<u16>(at)?;

        let udp = protocol == wire::UDP;
        let missing = udp && check == 0;
        // A pending checksum holds the pseudo-header's sum.
        let looks_pending = check == packet.pseudo_header().fold();
        let mut pending = false;
        if udp || looks_pending {
            pending = skb.is_checksum_pending(at, check)?;
            if pending && (missing || !looks_pending) {
                // Not this packet's, which has none or a finished one; so another one's within.
                return Err(Reason::Unfinished);
            }
        }
        let needs_sum = skb.forget((pending | missing).into()) != 0;
        let pending = skb.forget(pending.into()) != 0;
        let packet = skb.again(packet);
        let protocol = packet.ip.protocol;
        let sum = if needs_sum {
            if packet.l4_len > MAX_SUM {
                return Err(Reason::NoRoom);
            }
            // There is no checksum to derive the new one from. A router that sends flows without
            // checksums gets them here: behind a TCP header they can't be left out.
            skb.sum(packet.l4(), packet.l4_len)?.minus(check).add(Sum::pseudo_header(
                Sum::ZERO,
                protocol,
                packet.l4_len,
            ))
        } else {
            Sum::behind(check).subtract(packet.ip.addresses.sum())
        };
        let ports = packet.ip.ports.or(rule.inner_sport, rule.inner_dport);
        let check =
            sum.add(ports.instead_of(packet.ip.ports)).add(clamp.changed).checksum_of(protocol);
        Ok(Self { ports, check, pending, clamp })
    }
}

/// Makes room, and ends the pending state of the packet's checksum.
///
/// NAT further on would otherwise take the funnel header's checksum, which is finished, for a
/// pending one and spoil it. No helper ends that state by name. But the kernel gives it up when the
/// place where summing was to start has been pulled off the front (`skb_postpull_rcsum`, Linux
/// commit 6ae459bdaaee). So as many bytes are cut out behind the IP header as lie before that
/// place, and two more; then they are put back together with the room. Kernels without commit
/// 54c3f1a81421 look for that place before they pull; they look again when something is stored.
#[inline(always)]
fn make_room_unpending(
    skb: &Skb,
    packet: &Packet,
    l3: Offset,
    header_len: u32,
) -> Result<(), Reason> {
    let cut = l3.0 + packet.ip.ip_len + 2;
    let behind = l3 + packet.base_len();
    let len = skb.len();
    // A packet too short to lose that much is made longer for the time.
    let padded = behind.0 + cut > len;
    if padded {
        skb.change_len(behind.0 + cut)?;
    }
    let unchanged = if padded { Reason::Dropped } else { Reason::HelperError };
    let saved = skb.save(behind, cut).map_err(|Refused| unchanged)?;
    skb.adjust_room(-(cut as i32)).map_err(|Refused| unchanged)?;
    let put_back = put_back(skb, l3, behind, &saved, cut, header_len);
    put_back.map_err(|Refused| Reason::Dropped)?;
    if padded {
        skb.change_len(len + header_len).map_err(|Refused| Reason::Dropped)?;
    }
    // If the state belongs to another checksum, within the payload, it is there still.
    let at = l3 + packet.ip.ip_len + header_len + wire::checksum_offset(packet.ip.protocol);
    let check = skb.load::<u16>(at).map_err(|Refused| Reason::Dropped)?;
    match skb.is_checksum_pending(at, check) {
        Ok(false) => Ok(()),
        _ => Err(Reason::Dropped),
    }
}

/// Puts the `cut` bytes that were saved back in their place, which was `behind`, with room for the
/// funnel header in front of them.
#[inline(always)]
fn put_back(
    skb: &Skb,
    l3: Offset,
    behind: Offset,
    saved: &Saved,
    cut: u32,
    header_len: u32,
) -> Done {
    // Any store will do.
    let first = skb.load::<u32>(l3)?;
    skb.store(l3, &first)?;
    skb.adjust_room((cut + header_len) as i32)?;
    skb.restore(behind + header_len, saved)
}

/// Fills the room that was made at `l3`.
#[inline(always)]
fn write(
    skb: &Skb,
    packet: &Packet,
    rule: &RuleEntry,
    l3: Offset,
    header_len: u32,
    inner: &Inner,
) -> Done {
    // The room lies before the options; they go first.
    let options_len = packet.options_len();
    if options_len > 0 {
        let behind = l3 + packet.base_len();
        let options = skb.save(behind + header_len, options_len)?;
        skb.restore(behind, &options)?;
    }
    let header_at = l3 + packet.ip.ip_len;
    let inner_at = header_at + header_len;
    if rule.inner_sport | rule.inner_dport != 0 {
        skb.store(inner_at, &inner.ports)?;
    }
    inner.clamp.store(skb, inner_at)?;
    skb.store(inner_at + wire::checksum_offset(packet.ip.protocol), &inner.check)?;
    ip::grow(skb, packet.ip.family, l3, header_len as i32, Some(rule.protocol))?;
    let addresses = set_daddr(skb, packet, rule, l3)?;

    let l4_len = packet.l4_len + header_len;
    let inner_sum = !Sum::pseudo_header(Sum::ZERO, packet.ip.protocol, packet.l4_len).fold();
    let sum = Sum::pseudo_header(addresses, rule.protocol, l4_len).plus(inner_sum);
    let (sport, dport) = (rule.sport.to_be(), rule.dport.to_be());
    if rule.protocol == wire::UDP {
        let len = (l4_len as u16).to_be();
        let check = sum.plus(sport).plus(dport).plus(len).checksum_of(wire::UDP);
        skb.store(header_at, &UdpFunnel { sport, dport, len, check })
    } else {
        let mut header = TcpFunnel {
            sport,
            dport,
            sequence: wire::SEQUENCE.to_be(),
            acknowledgement: wire::ACKNOWLEDGEMENT.to_be(),
            data_offset: wire::DATA_OFFSET,
            flags: rule.tcp_flags,
            window: wire::WINDOW.to_be(),
            check: 0,
            urgent: 0,
        };
        header.check = sum
            .plus(sport)
            .plus(dport)
            .plus32(header.sequence)
            .plus32(header.acknowledgement)
            .plus(u16::from_ne_bytes([header.data_offset, header.flags]))
            .plus(header.window)
            .checksum();
        skb.store(header_at, &header)
    }
}
