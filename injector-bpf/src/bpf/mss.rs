//! The largest segment that a SYN allows (RFC 9293, 3.7.1), less the funnel header.
//!
//! Whoever answers with segments of that size sends packets that fit, funnel header included, where
//! packets without one did before.

use abi::{Reason, wire};

use super::checksum::Sum;
use super::packet::Packet;
use super::skb::{Done, Offset, Skb};

/// Of the two bytes of data offset and flags, the bit that says SYN.
const SYN: u16 = 0x0002;

/// Kinds of TCP options (RFC 9293, 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;

/// Bytes of an MSS option.
const MSS_LEN: u8 = 4;

/// What becomes of the option.
#[derive(Clone, Copy)]
pub struct Clamp {
    /// Bytes from the TCP header to the option's value; 0: there is nothing to do.
    at: u32,
    /// The new value, in network byte order.
    value: u16,
    /// What that adds to the sum of the segment.
    pub changed: Sum,
}

impl Clamp {
    const NOTHING: Self = Self { at: 0, value: 0, changed: Sum::ZERO };

    /// Looks for the option, for it to be made smaller by `by` bytes.
    #[inline(always)]
    pub fn look(skb: &Skb, packet: &Packet, by: u32) -> Result<Self, Reason> {
        if packet.ip.protocol != wire::TCP {
            return Ok(Self::NOTHING.forget(skb));
        }
        let offset_flags = u16::from_be(skb.load::<u16>(packet.l4() + 12)?);
        if offset_flags & SYN == 0 {
            return Ok(Self::NOTHING.forget(skb));
        }
        let header_len = skb.forget(u32::from(offset_flags >> 12) * 4);
        let clamp = match find(skb, packet.l4(), header_len)? {
            None => Self::NOTHING,
            Some(at) => {
                let old = u16::from_be(skb.load::<u16>(packet.l4() + at)?);
                if u32::from(old) <= by {
                    Self::NOTHING
                } else {
                    let (old, value) = (old.to_be(), (old - by as u16).to_be());
                    // At an odd place the two bytes belong to two words.
                    let turn = |value: u16| if at % 2 == 0 { value } else { value.swap_bytes() };
                    let changed = Sum::ZERO.minus(turn(old)).plus(turn(value));
                    Self { at, value, changed }
                }
            }
        };
        Ok(clamp.forget(skb))
    }

    /// See [`Skb::forget`].
    #[inline(always)]
    fn forget(self, skb: &Skb) -> Self {
        Self {
            at: skb.forget(self.at),
            value: skb.forget(self.value.into()) as u16,
            changed: self.changed.forget(skb),
        }
    }

    /// Writes the new value into the TCP header at `l4`.
    #[inline(always)]
    pub fn store(&self, skb: &Skb, l4: Offset) -> Done {
        if self.at == 0 {
            return Ok(());
        }
        skb.store(l4 + self.at, &self.value)
    }
}

/// Bytes from the TCP header at `l4`, which has `header_len`, to the value of its MSS option, if that
/// is among the first eight.
#[inline(always)]
#[expect(unused_assignments, reason = "behind the last option")]
fn find(skb: &Skb, l4: Offset, header_len: u32) -> Result<Option<u32>, Reason> {
    let mut at = skb.forget(wire::TCP_HEADER);
    macro_rules! option {
        () => {{
            if at + u32::from(MSS_LEN) > header_len {
                return Ok(None);
            }
            let [kind, len] = skb.load::<u16>(l4 + at)?.to_ne_bytes();
            if kind == MSS && len == MSS_LEN {
                return Ok(Some(at + 2));
            }
            let len = if kind == NO_OPERATION { 1 } else { len };
            if kind == END || len == 0 {
                return Ok(None);
            }
            at = skb.forget(at + u32::from(len));
        }};
    }
    // Every system's SYN begins with it. Written out, as all loops here: each step costs time
    // whenever the verifier looks at the program.
    option!();
    option!();
    option!();
    option!();
    option!();
    option!();
    option!();
    option!();
    Ok(None)
}
