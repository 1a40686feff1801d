//! Tokens to AST, by recursive descent. The first mistake ends it.

mod funnel;
mod value;
mod words;

use std::net::{IpAddr, SocketAddr};

use crate::MAX_TEXT;
use crate::ast::{Action, Cidr, Family, Match, Matches, PortRange, Protocol, Rule, Ruleset, Verb};
use crate::diagnostic::{Diagnostic, Kind};
use crate::lexer::{Span, Token, lex};
use value::{address, cidr, port_range};
use words::{ACTIONS, clause, is_keyword, not_a_match, not_an_action, symbol};

/// A ruleset and where its rules stand in the text.
#[derive(Debug)]
pub struct Parsed {
    /// The rules.
    pub ruleset: Ruleset,
    /// For each rule its first to its last word.
    pub rules: Vec<Span>,
    /// For each rule what stands behind `actions`.
    pub actions: Vec<Span>,
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
    let ruleset = Ruleset { rules: Vec::new() };
    let mut parsed = Parsed { ruleset, rules: Vec::new(), actions: Vec::new() };
    for rule in tokens.split_inclusive(|(token, _)| *token == Token::End) {
        let [words @ .., (_, end)] = rule else { continue };
        let (Some((_, first)), Some((_, last))) = (words.first(), words.last()) else { continue };
        if parsed.rules.len() == abi::MAX_RULES {
            return Err((Kind::TooManyRules(abi::MAX_RULES), first.start..last.end));
        }
        // A missing word is shown right behind the last one, not behind a comment.
        let end = last.end.min(end.start);
        let family = family(words);
        let (rule, action) = Parser { tokens: words, end: end..end, family }.rule()?;
        parsed.ruleset.rules.push(rule);
        parsed.rules.push(first.start..last.end);
        parsed.actions.push(action..last.end);
    }
    if parsed.rules.is_empty() {
        return Err((Kind::Empty, 0..0));
    }
    Ok(parsed)
}

/// The family that a rule names, which may stand behind its addresses.
fn family(words: &[(Token<'_>, Span)]) -> Option<Family> {
    words.iter().find_map(|(token, _)| match token {
        Token::Word("ip") => Some(Family::Ip),
        Token::Word("ip6") => Some(Family::Ip6),
        _ => None,
    })
}

/// Reads one rule. Holds what is left of it.
struct Parser<'a> {
    tokens: &'a [(Token<'a>, Span)],
    /// The place right behind the rule.
    end: Span,
    /// What its addresses have to be of.
    family: Option<Family>,
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

    /// The rule, and where its action begins.
    fn rule(mut self) -> Result<(Rule, usize), Error> {
        let matches = self.matches()?;
        let start = self.peek().1.start;
        let action = self.action(&matches)?;
        Ok((Rule { matches, action }, start))
    }

    /// Everything up to `actions`, and that word.
    fn matches(&mut self) -> Result<Matches, Error> {
        let start = self.peek().1;
        let (mut named, mut protocol) = (None, None);
        let (mut saddr, mut daddr): (Placed<Cidr>, Placed<Cidr>) = (None, None);
        let (mut sport, mut dport): (Placed<PortRange>, Placed<PortRange>) = (None, None);
        let family = self.family;
        let network = |word: &str, span| cidr(word, span, family);
        let end = loop {
            let (token, span) = self.next();
            let word = match token {
                Token::Word(word) => word,
                Token::End => return Err((Kind::ActionsMissing, span)),
                other => return Err((Kind::Misplaced(symbol(other)), span)),
            };
            match word {
                "actions" => break span,
                "ip" => set_once(&mut named, Family::Ip, "ip", Kind::BothFamilies, span)?,
                "ip6" => set_once(&mut named, Family::Ip6, "ip6", Kind::BothFamilies, span)?,
                "tcp" => set_once(&mut protocol, Protocol::Tcp, "tcp", Kind::BothProtocols, span)?,
                "udp" => set_once(&mut protocol, Protocol::Udp, "udp", Kind::BothProtocols, span)?,
                "saddr" => self.values(&mut saddr, "saddr", span, network)?,
                "daddr" => self.values(&mut daddr, "daddr", span, network)?,
                "sport" => self.values(&mut sport, "sport", span, port_range)?,
                "dport" => self.values(&mut dport, "dport", span, port_range)?,
                other => return Err((not_a_match(other), span)),
            }
        };
        for (name, addresses) in [("saddr", &saddr), ("daddr", &daddr)] {
            if let (None, Some((Match { values, .. }, span))) = (family, addresses) {
                return Err((Kind::IpMissing(name, values[0].family()), span.clone()));
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
            family,
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
        value: impl Fn(&str, Span) -> Result<T, Error>,
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
        value: impl Fn(&str, Span) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut values = Vec::new();
        loop {
            match self.peek() {
                (Token::Close, span) if values.is_empty() => {
                    return Err((Kind::EmptySet(name), span));
                }
                (Token::Close, _) => {}
                (Token::End, span) => return Err((Kind::SetNotClosed, span)),
                _ => values.push(self.value(name, &value)?),
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
        value: impl Fn(&str, Span) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let what = match name {
            "saddr" | "daddr" | "dnat" => "an address",
            "funnel" | "unfunnel" => "`tcp` or `udp`",
            "flags" => "a TCP flag",
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
    fn action(&mut self, matches: &Matches) -> Result<Action, Error> {
        let end = self.end.clone();
        let (first, _) = self.action_name()?.ok_or((Kind::ActionMissing, end))?;
        let mut action = match first {
            "accept" => Action::Accept,
            "drop" => Action::Drop,
            "funnel" => self.funnel(Verb::Funnel, matches)?,
            "unfunnel" => self.funnel(Verb::Unfunnel, matches)?,
            _ => Action::Dnat(self.new_address()?),
        };
        while let Some((name, span)) = self.action_name()? {
            match (&mut action, name) {
                // To one address, flows to several would become one.
                (Action::Translate { dnat: None, .. }, "dnat") if !one_host(&matches.daddr) => {
                    return Err((Kind::InPlaceDnat, span));
                }
                (
                    Action::Funnel { dnat, .. }
                    | Action::Unfunnel { dnat, .. }
                    | Action::Translate { dnat, .. },
                    "dnat",
                ) if dnat.is_none() => {
                    *dnat = Some(self.new_address()?);
                    if let (Token::Word(word), span) = self.peek()
                        && let Some(name) = clause(word)
                    {
                        return Err((Kind::BehindDnat(name), span));
                    }
                }
                (_, "dnat") if matches!(first, "funnel" | "unfunnel" | "dnat") => {
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
    fn new_address(&mut self) -> Result<IpAddr, Error> {
        let family = self.family;
        if let (Token::NotEqual | Token::Open, span) = self.peek() {
            return Err((Kind::DnatOneAddress, span));
        }
        self.value("dnat", |word, span| match address(word, span.clone(), family) {
            Ok(address) if no_host(address) => Err((Kind::DnatNoHost(address), span)),
            Err((Kind::BadAddress(..), span)) if word.parse::<SocketAddr>().is_ok() => {
                Err((Kind::DnatPort, span))
            }
            Err((Kind::BadAddress(..), span)) => Err((Kind::DnatOneAddress, span)),
            other => other,
        })
    }
}

/// Whether one address is matched and no other.
fn one_host(addresses: &Option<Match<Cidr>>) -> bool {
    let cidr = addresses.as_ref().and_then(Match::single);
    cidr.is_some_and(|cidr| Cidr::from(cidr.network()) == cidr)
}

/// Whether `address` is none that a host can have.
fn no_host(address: IpAddr) -> bool {
    address.is_unspecified()
        || address.is_multicast()
        || matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// Keeps what `name` stands for. `both` is what is wrong if another word was there.
fn set_once<T: PartialEq>(
    slot: &mut Option<T>,
    value: T,
    name: &'static str,
    both: Kind,
    span: Span,
) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        given if given == *slot => Err((Kind::MatchTwice(name), span)),
        Some(_) => Err((both, span)),
    }
}
