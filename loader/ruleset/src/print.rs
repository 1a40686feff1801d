//! The canonical text of rules. Parsing it gives the same rules again.

use std::fmt;

use crate::ast::{
    Action, Cidr, Family, InnerPorts, Match, Matches, PortRange, Protocol, Rule, Ruleset, TcpFlags,
    longest_prefix,
};

/// The word that stands for `family` in a rule.
pub(crate) const fn keyword(family: Family) -> &'static str {
    match family {
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
    }
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
        if let Some(family) = self.family {
            write!(f, "{} ", keyword(family))?;
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
        one_or_set(f, self.values.iter())
    }
}

/// A value as it is, several as a set.
fn one_or_set(
    f: &mut fmt::Formatter<'_>,
    mut values: impl ExactSizeIterator<Item = impl fmt::Display>,
) -> fmt::Result {
    let one = values.len() == 1;
    let Some(first) = values.next() else { return f.write_str("{ }") };
    if one {
        return first.fmt(f);
    }
    write!(f, "{{ {first}")?;
    values.try_for_each(|value| write!(f, ", {value}"))?;
    f.write_str(" }")
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
        self.network().fmt(f)?;
        if self.prefix() < longest_prefix(self.family()) {
            write!(f, "/{}", self.prefix())?;
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
        match self {
            Self::Accept => return f.write_str("accept"),
            Self::Drop => return f.write_str("drop"),
            Self::Dnat(address) => return write!(f, "dnat {address}"),
            Self::Funnel { through, sport, dport, flags, inner, dnat: _ } => {
                write!(f, "funnel {through} sport {sport} dport {dport}")?;
                if *flags != TcpFlags::default() {
                    write!(f, " flags {flags}")?;
                }
                if *inner != InnerPorts::default() {
                    write!(f, " inner{inner}")?;
                }
            }
            Self::Unfunnel { protocol, inner, dnat: _ } => write!(f, "unfunnel {protocol}{inner}")?,
            Self::Translate { verb, protocol, sport, dport, dnat: _ } => {
                // The dash tells that the ports are translated in place.
                write!(f, "{} {protocol} sport {}-{}", verb.name(), sport.first, sport.last)?;
                write!(f, " dport {dport}")?;
            }
        }
        self.dnat().map_or(Ok(()), |address| write!(f, " dnat {address}"))
    }
}

/// Each port with a blank in front.
impl fmt::Display for InnerPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, port) in [("sport", self.sport), ("dport", self.dport)] {
            if let Some(port) = port {
                write!(f, " {name} {port}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        one_or_set(f, self.names().collect::<Vec<_>>().iter())
    }
}
