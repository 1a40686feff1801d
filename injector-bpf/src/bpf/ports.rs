//! The two ports that TCP and UDP headers begin with, and what a rule makes of them.

use super::checksum::Sum;
use super::skb::Plain;

/// Source and destination port, in network byte order.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ports {
    pub sport: u16,
    pub dport: u16,
}

// SAFETY: integers without padding.
unsafe impl Plain for Ports {}

impl Ports {
    /// Where there are none.
    pub const NONE: Self = Self { sport: 0, dport: 0 };

    /// The four bytes of a packet that they are.
    #[inline(always)]
    pub fn from_bytes(bytes: u32) -> Self {
        let [a, b, c, d] = bytes.to_ne_bytes();
        Self { sport: u16::from_ne_bytes([a, b]), dport: u16::from_ne_bytes([c, d]) }
    }

    /// With source and destination exchanged.
    #[inline(always)]
    pub fn exchanged(self) -> Self {
        Self { sport: self.dport, dport: self.sport }
    }

    /// Those given, in host byte order, in place of these; 0 leaves one.
    #[inline(always)]
    pub fn or(self, sport: u16, dport: u16) -> Self {
        let new = |port: u16, old: u16| if port == 0 { old } else { port.to_be() };
        Self { sport: new(sport, self.sport), dport: new(dport, self.dport) }
    }

    /// These with differences in host byte order added, modulo 2^16.
    #[inline(always)]
    pub fn plus(self, sport: u16, dport: u16) -> Self {
        let new = |port: u16, by: u16| u16::from_be(port).wrapping_add(by).to_be();
        Self { sport: new(self.sport, sport), dport: new(self.dport, dport) }
    }

    /// What it adds to the sum of a segment when these stand there instead of `old`.
    #[inline(always)]
    pub fn instead_of(self, old: Self) -> Sum {
        Sum::ZERO.plus(self.sport).plus(self.dport).minus(old.sport).minus(old.dport)
    }

    /// The four bytes that they are in a packet.
    #[inline(always)]
    pub fn bytes(self) -> u32 {
        let ([a, b], [c, d]) = (self.sport.to_ne_bytes(), self.dport.to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    }
}
