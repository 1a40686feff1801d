//! Undoes in an ICMP error what the funnel did to the packet that it quotes, so that the error finds
//! the socket that sent it.
//!
//! ```text
//! before   [ip][options][icmp][quoted ip][funnel header][l4 ...]
//! after    [ip][options][icmp][quoted ip]               [l4 ...]
//! ```
//!
//! The rule is that for packets of the error's own direction. In the quote, source and destination
//! have changed places.

use abi::{Config, Reason, RuleEntry, action, flag, wire};

use super::checksum::Sum;
use super::icmp::IcmpError;
use super::ip;
use super::packet::{Packet, tcp_data_offset};
use super::ports::Ports;
use super::rewrite::Rewrite;
use super::skb::{Done, Offset, Skb};

/// Bytes of the inner TCP or UDP header by which its socket is found.
const NEEDED: u32 = 8;

/// From IPv6's header to its payload length.
const PAYLOAD_LEN: u32 = 4;

/// Carries out `rule` on the quote. `false`: it has nothing to say about errors.
#[inline(always)]
pub fn undo(skb: &Skb, packet: &Packet, rule: &RuleEntry, config: &Config) -> Result<bool, Reason> {
    let is = |action: u8| rule.action == action && config.quoted_actions >> action & 1 != 0;
    if rule.flags & flag::DNAT != 0 {
        // The address that the packet was sent to is not known any more.
        return Ok(false);
    }
    if is(action::TRANSLATE) {
        translate(skb, packet, rule)?;
    } else if is(action::UNFUNNEL) {
        unfunnel(skb, packet, rule)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Translates the ports of the quoted packet.
#[inline(always)]
fn translate(skb: &Skb, packet: &Packet, rule: &RuleEntry) -> Result<(), Reason> {
    let l4 = packet.quote + packet.base_len();
    let old = skb.load::<Ports>(packet.ip.l3 + l4)?;
    let new = old.plus(rule.dport, rule.sport);
    let changed = new.instead_of(old);
    let check = Check::look(skb, packet, l4, packet.ip.protocol, changed)?;
    let icmp_check = packet.l4() + 2;
    let sum = Sum::behind(skb.load::<u16>(icmp_check)?).add(changed).add(check.changed());
    skb.store(packet.ip.l3 + l4, &new).map_err(|_| Reason::Dropped)?;
    check.store(skb, packet.ip.l3, 0).map_err(|_| Reason::Dropped)?;
    skb.store(icmp_check, &sum.checksum()).map_err(|_| Reason::Dropped)
}

/// What becomes of a TCP or UDP checksum in a quote, which may end before it.
struct Check {
    /// Bytes to it from the frame's IP header; 0: it is not there, or says that there is none.
    at: u32,
    old: u16,
    new: u16,
}

impl Check {
    /// The one in the header of `protocol`, `l4` bytes behind the frame's IP header, once its
    /// segment sums up to `changed` more.
    #[inline(always)]
    fn look(
        skb: &Skb,
        packet: &Packet,
        l4: u32,
        protocol: u8,
        changed: Sum,
    ) -> Result<Self, Reason> {
        let (mut at, mut old, mut new) = (0, 0, 0);
        let place = l4 + wire::checksum_offset(protocol);
        if place + 2 <= packet.total_len() {
            let check = skb.load::<u16>(packet.ip.l3 + place)?;
            if check != 0 {
                (at, old) = (place, check);
                new = Sum::behind(check).add(changed).checksum_of(protocol);
            }
        }
        let forget = |value: u16| skb.forget(value.into()) as u16;
        Ok(Self { at: skb.forget(at), old: forget(old), new: forget(new) })
    }

    #[inline(always)]
    fn changed(&self) -> Sum {
        Sum::ZERO.plus(self.new).minus(self.old)
    }

    /// Writes the new one, which has moved `up` bytes nearer to the IP header at `l3`.
    #[inline(always)]
    fn store(&self, skb: &Skb, l3: Offset, up: u32) -> Done {
        if self.at == 0 {
            return Ok(());
        }
        skb.store(l3 + (self.at - up), &self.new)
    }
}

/// Removes the funnel header from the quoted packet, and what it takes from the MTU that the error
/// tells.
#[inline(always)]
fn unfunnel(skb: &Skb, packet: &Packet, rule: &RuleEntry) -> Result<(), Reason> {
    let family = packet.ip.family;
    let header_len = wire::header_len(packet.ip.protocol);
    let base_len = packet.base_len();
    let outer = packet.quote + base_len;
    let inner = outer + header_len;
    let icmp = skb.load::<IcmpError>(packet.l4())?;
    if packet.total_len() < inner + NEEDED || icmp.has_objects(family) {
        return Err(Reason::QuoteTooShort);
    }
    if packet.ip.protocol == wire::TCP && tcp_data_offset(skb, packet.ip.l3 + outer)? != header_len
    {
        return Err(Reason::NotFunnelled);
    }

    let packet = skb.again(packet);
    let old = skb.load::<Ports>(packet.ip.l3 + inner)?;
    let ports = old.or(rule.inner_dport, rule.inner_sport);
    let changed = ports.instead_of(old);
    let addressed = changed.add(packet.ip.addresses.sum());
    let check = Check::look(skb, packet, inner, rule.protocol, addressed)?;
    let mtu = icmp.reduced_mtu(family, header_len);
    // Of an IPv4 header in the quote the sum stays as it is: its own checksum sees to that.
    let lengths = if family == 0 {
        Sum::ZERO
    } else {
        let quoted = skb.load::<u16>(packet.ip.l3 + (packet.quote + PAYLOAD_LEN))?;
        let shorter = |len: u16| len.wrapping_sub(header_len as u16);
        let own = packet.l4_len as u16;
        Sum::ZERO
            .minus(quoted)
            .plus(shorter(u16::from_be(quoted)).to_be())
            .minus(u16::from_ne_bytes([packet.ip.protocol, 0]))
            .plus(u16::from_ne_bytes([rule.protocol, 0]))
            // The length in the error's own pseudo-header.
            .minus(own.to_be())
            .plus(shorter(own).to_be())
    };
    let sum = Sum::behind(icmp.check)
        .subtract(skb.sum_header(packet.ip.l3 + outer, header_len)?)
        .add(changed)
        .add(check.changed())
        .minus(icmp.rest[1])
        .plus(mtu)
        .add(lengths.forget(skb));
    let icmp = IcmpError { check: sum.checksum(), rest: [icmp.rest[0], mtu], ..icmp };

    let rewrite = Rewrite::begin(skb, packet)?;
    let (packet, l3) = (skb.again(packet), rewrite.l3);
    let unfunnelled = Unfunnelled { icmp, outer, ports, check, header_len };
    rewrite.resized(packet, unfunnelled.remove_header(skb, packet, l3))?;
    let packet = skb.again(packet);
    rewrite.finish(skb, unfunnelled.write(skb, packet, rule, l3))
}

/// What an ICMP error says of a packet without its funnel header.
struct Unfunnelled {
    icmp: IcmpError,
    /// Bytes from the frame's IP header to the funnel header in the quote, and to the packet's own
    /// afterwards.
    outer: u32,
    ports: Ports,
    check: Check,
    /// Bytes of the funnel header.
    header_len: u32,
}

impl Unfunnelled {
    /// Takes the funnel header's bytes out behind the IP header at `l3`, and puts back in front of
    /// the rest all that stands between.
    #[inline(always)]
    fn remove_header(&self, skb: &Skb, packet: &Packet, l3: Offset) -> Result<(), Reason> {
        let base_len = packet.base_len();
        let behind = l3 + base_len;
        let kept = skb.save(behind, self.outer - base_len)?;
        skb.adjust_room(-(self.header_len as i32))?;
        skb.restore(behind, &kept).map_err(|_| Reason::Dropped)
    }

    #[inline(always)]
    fn write(&self, skb: &Skb, packet: &Packet, rule: &RuleEntry, l3: Offset) -> Done {
        let (family, growth) = (packet.ip.family, -(self.header_len as i32));
        ip::grow(skb, family, l3, growth, None)?;
        ip::grow(skb, family, l3 + packet.quote, growth, Some(rule.protocol))?;
        skb.store(l3 + packet.ip.ip_len, &self.icmp)?;
        skb.store(l3 + self.outer, &self.ports)?;
        self.check.store(skb, l3, self.header_len)
    }
}
