//! Internet checksums (RFC 1071, RFC 1624).
//!
//! The sum of 16-bit words does not care for the byte order as long as all words have the same
//! (RFC 1071, 2.B): words are added as they lie in memory.

use super::skb::Skb;

/// A sum of 16-bit words, not yet folded.
#[derive(Clone, Copy)]
pub struct Sum(u64);

impl Sum {
    pub const ZERO: Self = Self(0);

    /// The sum of an address in network byte order.
    #[inline(always)]
    pub fn address(&[a, b, c, d]: &[u32; 4]) -> Self {
        Self::ZERO.plus32(a).plus32(b).plus32(c).plus32(d)
    }

    /// A sum as `bpf_csum_diff` gives it.
    #[inline(always)]
    pub fn from_words(sum: u32) -> Self {
        Self(sum.into())
    }

    /// What is summed up in a finished checksum `check`: everything but the checksum itself.
    #[inline(always)]
    pub fn behind(check: u16) -> Self {
        Self((!check).into())
    }

    /// The pseudo-header of TCP and UDP (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1), and of ICMPv6.
    /// `addresses` is the sum of both, `len` in host byte order: of the segment, header included.
    #[inline(always)]
    pub fn pseudo_header(addresses: Self, protocol: u8, len: u32) -> Self {
        addresses.plus(u16::from(protocol).to_be()).plus((len as u16).to_be())
    }

    #[inline(always)]
    pub fn plus(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds two words at once.
    #[inline(always)]
    pub fn plus32(self, words: u32) -> Self {
        Self(self.0 + u64::from(words))
    }

    #[inline(always)]
    pub fn minus(self, word: u16) -> Self {
        self.plus(!word)
    }

    /// Subtracts two words at once.
    #[inline(always)]
    pub fn minus32(self, words: u32) -> Self {
        self.plus32(!words)
    }

    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// No sum comes near 2^48, and 2^48 - 1 is 0 to the modulus of all of them, 2^16 - 1.
    #[inline(always)]
    pub fn subtract(self, other: Self) -> Self {
        Self(self.0 + ((1 << 48) - 1 - other.0))
    }

    /// See [`Skb::forget`].
    #[inline(always)]
    pub fn forget(self, skb: &Skb) -> Self {
        Self(skb.forget(self.fold().into()).into())
    }

    /// The sum in 16 bits.
    #[inline(always)]
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
        sum = (sum >> 16) + (sum & 0xFFFF);
        sum = (sum >> 16) + (sum & 0xFFFF);
        sum += sum >> 16;
        sum as u16
    }

    /// The checksum of everything summed up.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum as `protocol` writes it: a UDP checksum that comes out as 0 is written as all
    /// ones, for 0 says that there is none (RFC 768).
    #[inline(always)]
    pub fn checksum_of(self, protocol: u8) -> u16 {
        match self.checksum() {
            0 if protocol == abi::wire::UDP => 0xFFFF,
            checksum => checksum,
        }
    }
}
