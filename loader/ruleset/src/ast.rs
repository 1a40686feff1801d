//! The rules, as they were understood.
//!
//! A [`Ruleset`] made by the parser is valid: no port is 0, no set is empty, no CIDR has host bits.
//! `Display` writes it in canonical form, one rule a line; parsing that gives the same value again.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

/// A TCP or UDP port. Port 0 is reserved (RFC 6335, 6) and means nothing in a rule.
pub type Port = NonZeroU16;

/// Rules, the first of which matches wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// At least one.
    pub rules: Vec<Rule>,
}

/// One rule: all of its matches must hold, then its action is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub matches: Matches,
    /// What to do.
    pub action: Action,
}

/// The conditions of a rule. What is `None` holds for every packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    /// `ip` was written. Without it no address can be matched.
    pub ip: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<T> {
    /// `!=` was written.
    pub negated: bool,
    /// At least one.
    pub values: Vec<T>,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

impl Cidr {
    /// The network that `address` lies in. `None` if `prefix` is over 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self { network: address.to_bits() & mask(prefix), prefix })
    }

    /// First address, in host byte order.
    pub const fn first(self) -> u32 {
        self.network
    }

    /// Last address, in host byte order.
    pub fn last(self) -> u32 {
        self.network | !mask(self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: Port,
    /// The highest port; not below `first`.
    pub last: Port,
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        /// New destination address.
        dnat: Option<Ipv4Addr>,
    },
    /// Remove the funnel header.
    Unfunnel {
        /// Protocol of the packet below it.
        protocol: Protocol,
        /// New destination address.
        dnat: Option<Ipv4Addr>,
    },
    /// Set the destination address.
    Dnat(Ipv4Addr),
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} actions {}", self.matches, self.action)
    }
}

impl fmt::Display for Matches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ip {
            f.write_str("ip ")?;
        }
        if let Some(saddr) = &self.saddr {
            write!(f, "saddr {saddr} ")?;
        }
        if let Some(daddr) = &self.daddr {
            write!(f, "daddr {daddr} ")?;
        }
        self.protocol.fmt(f)?;
        if let Some(sport) = &self.sport {
            write!(f, " sport {sport}")?;
        }
        if let Some(dport) = &self.dport {
            write!(f, " dport {dport}")?;
        }
        Ok(())
    }
}

impl<T: fmt::Display> fmt::Display for Match<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negated {
            f.write_str("!= ")?;
        }
        match self.values.as_slice() {
            [value] => value.fmt(f),
            values => {
                f.write_str("{ ")?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(" }")
            }
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from_bits(self.network).fmt(f)?;
        if self.prefix < 32 {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        if self.first != self.last {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dnat = match self {
            Self::Accept => return f.write_str("accept"),
            Self::Drop => return f.write_str("drop"),
            Self::Dnat(address) => return write!(f, "dnat {address}"),
            Self::Funnel { through, sport, dport, dnat } => {
                write!(f, "funnel {through} sport {sport} dport {dport}")?;
                dnat
            }
            Self::Unfunnel { protocol, dnat } => {
                write!(f, "unfunnel {protocol}")?;
                dnat
            }
        };
        dnat.map_or(Ok(()), |address| write!(f, " dnat {address}"))
    }
}
