//! The rules, as they were understood.
//!
//! A [`Ruleset`] made by the parser is valid: no port is 0, no set is empty, no CIDR has host bits,
//! addresses are of the rule's family, ranges in place are as long as those that are matched.
//! `Display` writes it in canonical form, one rule a line; parsing that gives the same value again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

pub use abi::Family;

/// A TCP or UDP port. Port 0 is reserved (RFC 6335, 6) and means nothing in a rule.
pub type Port = NonZeroU16;

/// Rules, the first of which matches wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// At least one.
    pub rules: Vec<Rule>,
}

/// One rule: all of its matches must hold, then its action is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The conditions.
    pub matches: Matches,
    /// What to do.
    pub action: Action,
}

impl Rule {
    /// The one family that the rule holds for; `None` if it holds for both. Where no address is
    /// matched, `dnat` decides.
    pub fn family(&self) -> Option<Family> {
        self.matches.family.or_else(|| self.action.dnat().map(family_of))
    }
}

/// The conditions of a rule. What is `None` holds for every packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matches {
    /// `ip` or `ip6`. Without it no address can be matched.
    pub family: Option<Family>,
    /// Source address.
    pub saddr: Option<Match<Cidr>>,
    /// Destination address.
    pub daddr: Option<Match<Cidr>>,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// Source port.
    pub sport: Option<Match<PortRange>>,
    /// Destination port.
    pub dport: Option<Match<PortRange>>,
}

/// One of the values, or with `!=` none of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match<T> {
    /// `!=` was written.
    pub negated: bool,
    /// At least one.
    pub values: Vec<T>,
}

impl<T: Copy> Match<T> {
    /// The value, if the match is one value and no more.
    pub fn single(&self) -> Option<T> {
        match (self.negated, self.values.as_slice()) {
            (false, &[value]) => Some(value),
            _ => None,
        }
    }
}

/// The family of `address`.
pub const fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ip,
        IpAddr::V6(_) => Family::Ip6,
    }
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => abi::wire::TCP,
            Self::Udp => abi::wire::UDP,
        }
    }
}

/// An IPv4 or IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    family: Family,
    network: u128,
    prefix: u8,
}

impl Cidr {
    /// The network that `address` lies in. `None` if `prefix` is over 32, or over 128 for IPv6.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let family = family_of(address);
        let network = place(address) & !hosts(prefix);
        (prefix <= longest_prefix(family)).then_some(Self { family, network, prefix })
    }

    /// The family of its addresses.
    pub const fn family(self) -> Family {
        self.family
    }

    /// The network's own address.
    pub const fn network(self) -> IpAddr {
        match self.family {
            Family::Ip => IpAddr::V4(Ipv4Addr::from_bits((self.network >> 96) as u32)),
            Family::Ip6 => IpAddr::V6(Ipv6Addr::from_bits(self.network)),
        }
    }

    /// Length of the prefix in bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The [`place`]s of its addresses, the first and the last.
    pub fn places(self) -> (u128, u128) {
        (self.network, self.network | hosts(self.prefix))
    }
}

/// An address alone.
impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        let family = family_of(address);
        Self { family, network: place(address), prefix: longest_prefix(family) }
    }
}

/// Where `address` stands among those of its family, from 0 to [`u128::MAX`]. An IPv4 address is the
/// first 32 bits, so that a prefix means the same in both families.
pub const fn place(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => (address.to_bits() as u128) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The bits behind a prefix.
fn hosts(prefix: u8) -> u128 {
    u128::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

/// Bits of an address.
pub(crate) const fn longest_prefix(family: Family) -> u8 {
    match family {
        Family::Ip => 32,
        Family::Ip6 => 128,
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: Port,
    /// The highest port; not below `first`.
    pub last: Port,
}

impl PortRange {
    /// How many ports it has.
    pub const fn size(self) -> u16 {
        // 65,535 at the most: port 0 is in no range.
        self.last.get() - self.first.get() + 1
    }
}

impl From<Port> for PortRange {
    fn from(port: Port) -> Self {
        Self { first: port, last: port }
    }
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Leave it as it is and ask no further filter.
    Accept,
    /// Drop it.
    Drop,
    /// Push a funnel header.
    Funnel {
        /// Protocol of the header.
        through: Protocol,
        /// Its source port.
        sport: Port,
        /// Its destination port.
        dport: Port,
        /// Its flags, if it is a TCP header; otherwise the default.
        flags: TcpFlags,
        /// New ports of the packet's own header.
        inner: InnerPorts,
        /// New destination address.
        dnat: Option<IpAddr>,
    },
    /// Remove the funnel header.
    Unfunnel {
        /// Protocol of the packet below it.
        protocol: Protocol,
        /// New ports of that packet.
        inner: InnerPorts,
        /// New destination address.
        dnat: Option<IpAddr>,
    },
    /// Translate both ports in place, one to one. The rule matches one range of each.
    Translate {
        /// How it was written; does not change what is done.
        verb: Verb,
        /// The protocol that the rule matches.
        protocol: Protocol,
        /// What the range of source ports becomes; as many ports as the rule matches.
        sport: PortRange,
        /// What the range of destination ports becomes, likewise.
        dport: PortRange,
        /// New destination address. The rule then matches a single one.
        dnat: Option<IpAddr>,
    },
    /// Set the destination address.
    Dnat(IpAddr),
}

impl Action {
    /// The new destination address.
    pub const fn dnat(&self) -> Option<IpAddr> {
        match *self {
            Self::Accept | Self::Drop => None,
            Self::Dnat(address) => Some(address),
            Self::Funnel { dnat, .. }
            | Self::Unfunnel { dnat, .. }
            | Self::Translate { dnat, .. } => dnat,
        }
    }
}

/// `funnel` or `unfunnel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `funnel`
    Funnel,
    /// `unfunnel`
    Unfunnel,
}

impl Verb {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Funnel => "funnel",
            Self::Unfunnel => "unfunnel",
        }
    }
}

/// New ports of the header behind the funnel's; `None` leaves a port as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InnerPorts {
    /// Source port.
    pub sport: Option<Port>,
    /// Destination port.
    pub dport: Option<Port>,
}

/// Flags of a TCP header, as its byte 13 has them (RFC 9293, 3.1). SYN alone by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The flags' names, from the lowest bit on.
    pub const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

    /// The flag called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|&known| known == name).map(|bit| Self(1 << bit))
    }

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..).zip(Self::NAMES).filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| name)
    }
}

impl Default for TcpFlags {
    fn default() -> Self {
        Self(abi::wire::FLAGS)
    }
}
