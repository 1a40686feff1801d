//! `funnel` and `unfunnel`: with a header, or in place if a port is written as a range.

use super::value::{port_range, protocol, tcp_flag};
use super::words::{ACTIONS, not_a_clause};
use super::{Error, Parser};
use crate::ast::{Action, InnerPorts, Match, Matches, Port, PortRange, Protocol, TcpFlags, Verb};
use crate::diagnostic::Kind;
use crate::lexer::{Span, Token};

/// Everything behind `funnel` or `unfunnel`, as it was written.
struct Written {
    verb: Verb,
    /// `encap` or `decap`: newer originals name the mode.
    mode: Option<(&'static str, Span)>,
    protocol: (Protocol, Span),
    ports: Ports,
    flags: Option<(TcpFlags, Span)>,
    inner: Option<(Ports, Span)>,
    /// The place behind it.
    end: Span,
}

#[derive(Default)]
struct Ports {
    sport: Option<WrittenPort>,
    dport: Option<WrittenPort>,
}

struct WrittenPort {
    range: PortRange,
    /// Written with a dash, even if it is a range of one.
    dash: bool,
    span: Span,
}

impl Parser<'_> {
    /// What stands behind the word `funnel` or `unfunnel`.
    pub(super) fn funnel(&mut self, verb: Verb, matches: &Matches) -> Result<Action, Error> {
        let written = self.written(verb)?;
        if written.ports.in_place() {
            written.translate(matches)
        } else if verb == Verb::Funnel {
            written.funnel()
        } else {
            written.unfunnel()
        }
    }

    fn written(&mut self, verb: Verb) -> Result<Written, Error> {
        let mode = if verb == Verb::Funnel { "encap" } else { "decap" };
        let mode_span = self.peek().1;
        let mode = self.next_if(Token::Word(mode)).then_some((mode, mode_span));
        let protocol_span = self.peek().1;
        let protocol = (self.value(verb.name(), protocol)?, protocol_span);
        let mut written = Written {
            verb,
            mode,
            protocol,
            ports: Ports::default(),
            flags: None,
            inner: None,
            end: self.end.clone(),
        };
        while let (Token::Word(word), span) = self.peek() {
            match word {
                "sport" => self.port(&mut written, "sport")?,
                "dport" => self.port(&mut written, "dport")?,
                "flags" => self.flags(&mut written)?,
                "inner" => self.inner(&mut written)?,
                _ if ACTIONS.contains(&word) => {
                    written.end = span;
                    break;
                }
                _ => return Err((not_a_clause(word, verb, written.next_port()), span)),
            }
        }
        Ok(written)
    }

    /// `sport` or `dport`: the packet's own once `inner` was written.
    fn port(&mut self, written: &mut Written, name: &'static str) -> Result<(), Error> {
        let (_, span) = self.next();
        let is_inner = written.inner.is_some();
        let ports = written.inner.as_mut().map_or(&mut written.ports, |(ports, _)| ports);
        let slot = if name == "sport" { &mut ports.sport } else { &mut ports.dport };
        if slot.is_some() {
            return Err((Kind::ActionTwice(name), span));
        }
        let one = || if is_inner { Kind::InnerOnePort(name) } else { Kind::FunnelOnePort(name) };
        if let (Token::NotEqual | Token::Open, span) = self.peek() {
            return Err((one(), span));
        }
        let (token, span) = self.peek();
        let dash = matches!(token, Token::Word(word) if word.contains('-'));
        let range = self.value(name, port_range)?;
        if is_inner && dash {
            return Err((one(), span));
        }
        *slot = Some(WrittenPort { range, dash, span });
        Ok(())
    }

    fn flags(&mut self, written: &mut Written) -> Result<(), Error> {
        let (_, span) = self.next();
        match (written.verb, written.protocol.0) {
            (Verb::Unfunnel, _) => return Err((Kind::NotOfUnfunnel("flags"), span)),
            (Verb::Funnel, Protocol::Udp) => return Err((Kind::FlagsOfUdp, span)),
            (Verb::Funnel, Protocol::Tcp) => {}
        }
        if written.flags.is_some() {
            return Err((Kind::ActionTwice("flags"), span));
        }
        let flags = if self.next_if(Token::Open) {
            self.set("flags", tcp_flag)?
        } else {
            let flag = self.value("flags", tcp_flag)?;
            match self.peek() {
                (Token::Comma, span) => return Err((Kind::FlagsWithoutBraces, span)),
                (Token::Word(word), span) if TcpFlags::named(word).is_some() => {
                    return Err((Kind::FlagsWithoutBraces, span));
                }
                _ => vec![flag],
            }
        };
        let byte = flags.iter().fold(0, |byte, flag| byte | flag.0);
        written.flags = Some((TcpFlags(byte), span));
        Ok(())
    }

    /// The word `inner`; the ports behind it follow.
    fn inner(&mut self, written: &mut Written) -> Result<(), Error> {
        let (_, span) = self.next();
        if written.verb == Verb::Unfunnel {
            return Err((Kind::NotOfUnfunnel("inner"), span));
        }
        if written.inner.is_some() {
            return Err((Kind::ActionTwice("inner"), span));
        }
        if written.ports.sport.is_none() || written.ports.dport.is_none() {
            return Err((Kind::InnerFirst, span));
        }
        match self.peek() {
            (Token::Word("sport" | "dport"), _) => {}
            (_, span) => return Err((Kind::ValueMissing("inner", "`sport` or `dport`"), span)),
        }
        written.inner = Some((Ports::default(), span));
        Ok(())
    }
}

impl Ports {
    /// Whether a port is written as a range.
    fn in_place(&self) -> bool {
        [&self.sport, &self.dport].into_iter().flatten().any(|port| port.dash)
    }

    /// The ports, which are not in place and so one each.
    fn inner(&self) -> InnerPorts {
        let one = |port: &Option<WrittenPort>| port.as_ref().map(|port| port.range.first);
        InnerPorts { sport: one(&self.sport), dport: one(&self.dport) }
    }
}

impl Written {
    /// The first of the names of ports that may still follow.
    fn next_port(&self) -> Option<&'static str> {
        let ports = self.inner.as_ref().map_or(&self.ports, |(ports, _)| ports);
        match ports {
            Ports { dport: None, .. } => Some("dport"),
            Ports { sport: None, .. } => Some("sport"),
            _ => None,
        }
    }

    fn funnel(self) -> Result<Action, Error> {
        let own = self.ports.inner();
        let port = |port: Option<Port>, name| {
            port.ok_or_else(|| (Kind::FunnelPortMissing(name), self.end.clone()))
        };
        Ok(Action::Funnel {
            through: self.protocol.0,
            sport: port(own.sport, "sport")?,
            dport: port(own.dport, "dport")?,
            flags: self.flags.map_or_else(TcpFlags::default, |(flags, _)| flags),
            inner: self.inner.map_or_else(InnerPorts::default, |(ports, _)| ports.inner()),
            dnat: None,
        })
    }

    fn unfunnel(self) -> Result<Action, Error> {
        Ok(Action::Unfunnel { protocol: self.protocol.0, inner: self.ports.inner(), dnat: None })
    }

    /// In place. A bijection needs as many ports before as after.
    fn translate(self, matches: &Matches) -> Result<Action, Error> {
        let Self { verb, mode, protocol: (protocol, protocol_span), ports, flags, inner, end } =
            self;
        let of_header =
            [mode, flags.map(|(_, span)| ("flags", span)), inner.map(|(_, span)| ("inner", span))];
        if let Some((word, span)) = of_header.into_iter().flatten().next() {
            return Err((Kind::NoHeader(word), span));
        }
        let missing = |name| (Kind::InPlacePortMissing(name), end.clone());
        let sport = ports.sport.ok_or_else(|| missing("sport"))?;
        let dport = ports.dport.ok_or_else(|| missing("dport"))?;
        if protocol != matches.protocol {
            return Err((Kind::InPlaceProtocol(verb, protocol, matches.protocol), protocol_span));
        }
        Ok(Action::Translate {
            verb,
            protocol,
            sport: same_size("sport", matches.sport.as_ref(), sport)?,
            dport: same_size("dport", matches.dport.as_ref(), dport)?,
            dnat: None,
        })
    }
}

/// What the range that is matched becomes.
fn same_size(
    name: &'static str,
    matched: Option<&Match<PortRange>>,
    becomes: WrittenPort,
) -> Result<PortRange, Error> {
    let WrittenPort { range, dash: _, span } = becomes;
    match matched.and_then(Match::single) {
        None => Err((Kind::InPlaceMatch(name), span)),
        Some(matched) if matched.size() != range.size() => {
            Err((Kind::InPlaceSize(name, matched, range), span))
        }
        Some(_) => Ok(range),
    }
}
