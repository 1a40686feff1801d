//! Tokens to AST, by recursive descent. The first mistake ends it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::MAX_TEXT;
use crate::ast::{Action, Cidr, Match, Matches, Port, PortRange, Protocol, Rule, Ruleset};
use crate::diagnostic::{Diagnostic, Kind};
use crate::lexer::{Span, Token, lex};

const MATCHES: [&str; 7] = ["ip", "saddr", "daddr", "tcp", "udp", "sport", "dport"];
const ACTIONS: [&str; 5] = ["accept", "drop", "funnel", "unfunnel", "dnat"];

/// A ruleset and where its rules stand in the text.
#[derive(Debug)]
pub struct Parsed {
    /// The rules.
    pub ruleset: Ruleset,
    /// For each rule its first to its last word.
    pub rules: Vec<Span>,
}

/// Parses the text of a ruleset.
///
/// # Errors
///
/// The first mistake, with its place in the text.
pub fn parse(text: &str) -> Result<Parsed, Diagnostic> {
    parse_at(text).map_err(|(kind, span)| Diagnostic::new(kind, text, span))
}

type Error = (Kind, Span);

fn parse_at(text: &str) -> Result<Parsed, Error> {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        return Err((Kind::TooLong(MAX_TEXT), end..end));
    }
    let tokens = lex(text)?;
    let mut parsed = Parsed { ruleset: Ruleset { rules: Vec::new() }, rules: Vec::new() };
    for rule in tokens.split_inclusive(|(token, _)| *token == Token::End) {
        let [words @ .., (_, end)] = rule else { continue };
        let (Some((_, first)), Some((_, last))) = (words.first(), words.last()) else { continue };
        if parsed.rules.len() == abi::MAX_RULES {
            return Err((Kind::TooManyRules(abi::MAX_RULES), first.start..last.end));
        }
        // A missing word is shown right behind the last one, not behind a comment.
        let end = last.end.min(end.start);
        parsed.ruleset.rules.push(Parser { tokens: words, end: end..end }.rule()?);
        parsed.rules.push(first.start..last.end);
    }
    if parsed.rules.is_empty() {
        return Err((Kind::Empty, 0..0));
    }
    Ok(parsed)
}

/// Reads one rule. Holds what is left of it.
struct Parser<'a> {
    tokens: &'a [(Token<'a>, Span)],
    /// The place right behind the rule.
    end: Span,
}

/// A match as it was written, and where its name stands.
type Placed<T> = Option<(Match<T>, Span)>;

impl<'a> Parser<'a> {
    fn peek(&self) -> (Token<'a>, Span) {
        self.tokens.first().cloned().unwrap_or((Token::End, self.end.clone()))
    }

    fn next(&mut self) -> (Token<'a>, Span) {
        let next = self.peek();
        self.tokens = self.tokens.get(1..).unwrap_or_default();
        next
    }

    fn next_if(&mut self, wanted: Token<'_>) -> bool {
        let found = self.peek().0 == wanted && wanted != Token::End;
        if found {
            self.next();
        }
        found
    }

    fn rule(mut self) -> Result<Rule, Error> {
        Ok(Rule { matches: self.matches()?, action: self.action()? })
    }

    /// Everything up to `actions`, and that word.
    fn matches(&mut self) -> Result<Matches, Error> {
        let start = self.peek().1;
        let mut ip = false;
        let mut protocol = None;
        let (mut saddr, mut daddr): (Placed<Cidr>, Placed<Cidr>) = (None, None);
        let (mut sport, mut dport): (Placed<PortRange>, Placed<PortRange>) = (None, None);
        let end = loop {
            let (token, span) = self.next();
            let word = match token {
                Token::Word(word) => word,
                Token::End => return Err((Kind::ActionsMissing, span)),
                other => return Err((Kind::Misplaced(symbol(other)), span)),
            };
            match word {
                "actions" => break span,
                "ip" if ip => return Err((Kind::MatchTwice("ip"), span)),
                "ip" => ip = true,
                "tcp" => set_protocol(&mut protocol, Protocol::Tcp, span)?,
                "udp" => set_protocol(&mut protocol, Protocol::Udp, span)?,
                "saddr" => self.values(&mut saddr, "saddr", span, cidr)?,
                "daddr" => self.values(&mut daddr, "daddr", span, cidr)?,
                "sport" => self.values(&mut sport, "sport", span, port_range)?,
                "dport" => self.values(&mut dport, "dport", span, port_range)?,
                other => return Err((not_a_match(other), span)),
            }
        };
        for (name, address) in [("saddr", &saddr), ("daddr", &daddr)] {
            if let (false, Some((_, span))) = (ip, address) {
                return Err((Kind::IpMissing(name), span.clone()));
            }
        }
        let Some(protocol) = protocol else {
            return Err(match (sport, dport) {
                (Some((_, span)), _) => (Kind::PortWithoutProtocol("sport"), span),
                (_, Some((_, span))) => (Kind::PortWithoutProtocol("dport"), span),
                (None, None) => (Kind::ProtocolMissing, start.start..end.end),
            });
        };
        Ok(Matches {
            ip,
            saddr: saddr.map(|(m, _)| m),
            daddr: daddr.map(|(m, _)| m),
            protocol,
            sport: sport.map(|(m, _)| m),
            dport: dport.map(|(m, _)| m),
        })
    }

    /// `[!=] VALUE` or `[!=] { VALUE, ... }` behind the match `name`.
    fn values<T>(
        &mut self,
        slot: &mut Placed<T>,
        name: &'static str,
        span: Span,
        value: fn(&str, Span) -> Result<T, Error>,
    ) -> Result<(), Error> {
        if slot.is_some() {
            return Err((Kind::MatchTwice(name), span));
        }
        let negated = self.next_if(Token::NotEqual);
        let values = if self.next_if(Token::Open) {
            self.set(name, value)?
        } else {
            vec![self.value(name, value)?]
        };
        *slot = Some((Match { negated, values }, span));
        Ok(())
    }

    /// The inside of a set, and its `}`.
    fn set<T>(
        &mut self,
        name: &'static str,
        value: fn(&str, Span) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut values = Vec::new();
        loop {
            match self.peek() {
                (Token::Close, span) if values.is_empty() => return Err((Kind::EmptySet, span)),
                (Token::Close, _) => {}
                (Token::End, span) => return Err((Kind::SetNotClosed, span)),
                _ => values.push(self.value(name, value)?),
            }
            match self.next() {
                (Token::Close, _) => return Ok(values),
                (Token::Comma, _) => {}
                (Token::Word(word), span) if !is_keyword(word) => {
                    return Err((Kind::CommaMissing, span));
                }
                (_, span) => return Err((Kind::SetNotClosed, span)),
            }
        }
    }

    fn value<T>(
        &mut self,
        name: &'static str,
        value: fn(&str, Span) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let what = match name {
            "saddr" | "daddr" | "dnat" => "an address",
            "funnel" | "unfunnel" => "`tcp` or `udp`",
            _ => "a port",
        };
        match self.next() {
            (Token::Word(word), span) if !is_keyword(word) || what.starts_with('`') => {
                value(word, span)
            }
            (Token::End | Token::Word(_), span) => Err((Kind::ValueMissing(name, what), span)),
            (other, span) => Err((Kind::Misplaced(symbol(other)), span)),
        }
    }

    /// Everything behind `actions`.
    fn action(&mut self) -> Result<Action, Error> {
        let end = self.end.clone();
        let (first, _) = self.action_name()?.ok_or((Kind::ActionMissing, end))?;
        let mut action = match first {
            "accept" => Action::Accept,
            "drop" => Action::Drop,
            "funnel" => self.funnel()?,
            "unfunnel" => {
                // Newer originals name the mode; there is but one.
                self.next_if(Token::Word("decap"));
                Action::Unfunnel { protocol: self.value("unfunnel", protocol)?, dnat: None }
            }
            _ => Action::Dnat(self.new_address()?),
        };
        while let Some((name, span)) = self.action_name()? {
            match (&mut action, name) {
                (Action::Funnel { dnat, .. } | Action::Unfunnel { dnat, .. }, "dnat")
                    if dnat.is_none() =>
                {
                    *dnat = Some(self.new_address()?);
                }
                (Action::Funnel { .. } | Action::Unfunnel { .. }, "dnat") => {
                    return Err((Kind::ActionTwice(name), span));
                }
                (_, name) if name == first => return Err((Kind::ActionTwice(name), span)),
                (Action::Dnat(_), "funnel" | "unfunnel") => {
                    return Err((Kind::DnatFirst(name), span));
                }
                _ => return Err((Kind::Contradiction(first, name), span)),
            }
        }
        Ok(action)
    }

    /// The next action's name; `None` at the rule's end.
    fn action_name(&mut self) -> Result<Option<(&'static str, Span)>, Error> {
        let (token, span) = self.next();
        match token {
            Token::End => Ok(None),
            Token::Word(word) => match ACTIONS.iter().find(|&&name| name == word) {
                Some(&name) => Ok(Some((name, span))),
                None => Err((not_an_action(word), span)),
            },
            other => Err((Kind::Misplaced(symbol(other)), span)),
        }
    }

    /// The one address behind `dnat`.
    fn new_address(&mut self) -> Result<Ipv4Addr, Error> {
        match self.peek() {
            (Token::NotEqual | Token::Open, span) => Err((Kind::DnatOneAddress, span)),
            _ => self.value("dnat", address).map_err(|error| match error {
                (Kind::BadAddress(_), span) => (Kind::DnatOneAddress, span),
                other => other,
            }),
        }
    }

    /// `tcp|udp`, and `sport` and `dport` in either order.
    fn funnel(&mut self) -> Result<Action, Error> {
        self.next_if(Token::Word("encap"));
        let through = self.value("funnel", protocol)?;
        let (mut sport, mut dport) = (None, None);
        while let (Token::Word(name @ ("sport" | "dport")), span) = self.peek() {
            self.next();
            let (name, slot) = match name {
                "sport" => ("sport", &mut sport),
                _ => ("dport", &mut dport),
            };
            if slot.is_some() {
                return Err((Kind::ActionTwice(name), span));
            }
            if let (Token::NotEqual | Token::Open, span) = self.peek() {
                return Err((Kind::FunnelOnePort(name), span));
            }
            let span = self.peek().1;
            let PortRange { first, last } = self.value(name, port_range)?;
            if first != last {
                return Err((Kind::FunnelOnePort(name), span));
            }
            *slot = Some(first);
        }
        let span = self.peek().1;
        Ok(Action::Funnel {
            through,
            sport: sport.ok_or((Kind::FunnelPortMissing("sport"), span.clone()))?,
            dport: dport.ok_or((Kind::FunnelPortMissing("dport"), span))?,
            dnat: None,
        })
    }
}

fn set_protocol(slot: &mut Option<Protocol>, protocol: Protocol, span: Span) -> Result<(), Error> {
    match *slot {
        None => {
            *slot = Some(protocol);
            Ok(())
        }
        Some(given) if given == protocol => {
            Err((Kind::MatchTwice(if protocol == Protocol::Tcp { "tcp" } else { "udp" }), span))
        }
        Some(_) => Err((Kind::BothProtocols, span)),
    }
}

fn protocol(word: &str, span: Span) -> Result<Protocol, Error> {
    match word {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err((Kind::NotAProtocol(word.to_owned()), span)),
    }
}

fn port_range(word: &str, span: Span) -> Result<PortRange, Error> {
    let bad = || (Kind::BadPort(word.to_owned()), span.clone());
    let port = |digits: &str| {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u16 = digits.parse().map_err(|_| bad())?;
        Port::new(number).ok_or((Kind::PortZero, span.clone()))
    };
    let (first, last) = match word.split_once('-') {
        None => (port(word)?, port(word)?),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    if last < first {
        return Err((Kind::RangeReversed(first.get(), last.get()), span));
    }
    Ok(PortRange { first, last })
}

/// An address, a network with a prefix length, or as in the original a network with a netmask.
fn cidr(word: &str, span: Span) -> Result<Cidr, Error> {
    let (network, prefix) = word.split_once('/').unwrap_or((word, "32"));
    let network = address(network, span.clone())?;
    let bits = match prefix.parse::<Ipv4Addr>() {
        Ok(mask) => netmask_bits(mask.to_bits()),
        Err(_) if prefix.bytes().all(|b| b.is_ascii_digit()) => prefix.parse().ok(),
        Err(_) => None,
    };
    bits.and_then(|bits| Cidr::new(network, bits))
        .ok_or_else(|| (Kind::BadPrefix(prefix.to_owned()), span))
}

/// Length of the prefix that a netmask or a host mask stands for, as Python's `ipaddress` reads it.
fn netmask_bits(mask: u32) -> Option<u8> {
    let ones = match mask {
        // All zeros is a netmask, all ones too.
        0 | u32::MAX => mask.leading_ones(),
        _ if mask.leading_ones() + mask.trailing_zeros() == 32 => mask.leading_ones(),
        _ if mask.leading_zeros() + mask.trailing_ones() == 32 => mask.leading_zeros(),
        _ => return None,
    };
    u8::try_from(ones).ok()
}

fn address(word: &str, span: Span) -> Result<Ipv4Addr, Error> {
    word.parse().map_err(|_| {
        let kind = if word.parse::<Ipv6Addr>().is_ok() {
            Kind::Ip6Address(word.to_owned())
        } else {
            Kind::BadAddress(word.to_owned())
        };
        (kind, span)
    })
}

fn is_keyword(word: &str) -> bool {
    word == "actions" || MATCHES.contains(&word) || ACTIONS.contains(&word)
}

/// What somebody may have meant who wrote `word` where a match should stand.
fn not_a_match(word: &str) -> Kind {
    if let Some(action) = ACTIONS.iter().find(|&&name| name == word) {
        return Kind::ActionsMissingBefore(action);
    }
    if matches!(word, "ip6" | "ipv6") {
        return Kind::Ip6;
    }
    // A dash: somebody put blanks into a range.
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Kind::ValueWithoutMatch(word.to_owned());
    }
    // `tcp port 80` is in the original's own documentation; most who write it mean `dport`.
    let meant = match word {
        "port" => Some("dport"),
        "addr" => Some("daddr"),
        "ip4" | "ipv4" => Some("ip"),
        // They look like `tcp`, and are meant as they are written.
        "icmp" | "sctp" => None,
        _ => similar(word, MATCHES.iter().chain(&["actions"])),
    };
    Kind::UnknownMatch(word.to_owned(), meant)
}

fn not_an_action(word: &str) -> Kind {
    if word == "actions" {
        return Kind::ActionsTwice;
    }
    if let Some(name) = MATCHES.iter().find(|&&name| name == word) {
        return Kind::MatchAfterActions(name);
    }
    Kind::UnknownAction(word.to_owned(), similar(word, ACTIONS.iter()))
}

/// The keyword that `word` comes close to: at most two letters away, one if the keyword is short.
fn similar<'a>(
    word: &str,
    keywords: impl Iterator<Item = &'a &'static str>,
) -> Option<&'static str> {
    let lower = word.get(..16).unwrap_or(word).to_ascii_lowercase();
    keywords
        .map(|&keyword| (strsim::damerau_levenshtein(&lower, keyword), keyword))
        .filter(|&(distance, keyword)| {
            distance <= if keyword.len() > 3 { 2 } else { 1 } && distance < lower.len()
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, keyword)| keyword)
}

fn symbol(token: Token<'_>) -> &'static str {
    match token {
        Token::NotEqual => "!=",
        Token::Open => "{",
        Token::Close => "}",
        Token::Comma => ",",
        Token::End => ";",
        Token::Word(_) => "word",
    }
}
