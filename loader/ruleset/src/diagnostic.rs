//! What is wrong with a ruleset, where, and what would be right.
//!
//! The text is plain, so that it reads well in an AdmissionResponse and in a container's log alike.
//! It shows one rule at most, cut to the part that matters.

use std::fmt;
use std::net::IpAddr;

use crate::ast::{Family, PortRange, Protocol, Verb};
use crate::lexer::Span;
use crate::print::keyword;

/// Whether the ruleset is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It is.
    Error,
    /// It is not, but can't be meant so.
    Warning,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No rule at all.
    Empty,
    /// More than so many bytes.
    TooLong(usize),
    /// More than so many rules.
    TooManyRules(usize),
    /// The tables would hold more than so many of something.
    TooComplex(usize, &'static str),
    /// A control character, which could hide what a rule says.
    ControlCharacter(char),
    /// A character that the language does not use.
    UnexpectedCharacter(char),
    /// A word that is no match, and the match that it resembles.
    UnknownMatch(String, Option<&'static str>),
    /// A port or an address where a match should stand.
    ValueWithoutMatch(String),
    /// An action before `actions`.
    ActionsMissingBefore(&'static str),
    /// A rule that ends among its matches.
    ActionsMissing,
    /// `actions` a second time.
    ActionsTwice,
    /// A match a second time.
    MatchTwice(&'static str),
    /// `tcp` and `udp`.
    BothProtocols,
    /// `ip` and `ip6`.
    BothFamilies,
    /// A port without a protocol.
    PortWithoutProtocol(&'static str),
    /// Neither `tcp` nor `udp`.
    ProtocolMissing,
    /// An address without the word for its family.
    IpMissing(&'static str, Family),
    /// A keyword without what has to follow it.
    ValueMissing(&'static str, &'static str),
    /// A word where `tcp` or `udp` should stand.
    NotAProtocol(String),
    /// Neither a port nor a range of ports.
    BadPort(String),
    /// Port 0.
    PortZero,
    /// A range that ends before it starts.
    RangeReversed(u16, u16),
    /// Neither an address nor a CIDR, of the rule's family if it has one.
    BadAddress(String, Option<Family>),
    /// An address in a rule for the other family, which is this one.
    WrongFamily(String, Family),
    /// A prefix length that the family does not have.
    BadPrefix(String, Family),
    /// `{ }`, behind this word.
    EmptySet(&'static str),
    /// A set without `}`.
    SetNotClosed,
    /// Two values of a set without a comma.
    CommaMissing,
    /// `!=`, a brace or a comma where a word should stand.
    Misplaced(&'static str),
    /// `actions` without an action.
    ActionMissing,
    /// A word that is no action, and the action that it resembles.
    UnknownAction(String, Option<&'static str>),
    /// A word behind `funnel` or `unfunnel` that has no meaning there, and the one that it resembles.
    UnknownClause(Verb, String, Option<&'static str>),
    /// A match after `actions`.
    MatchAfterActions(&'static str),
    /// `funnel` without one of its ports.
    FunnelPortMissing(&'static str),
    /// A set or `!=` for a funnel's port.
    FunnelOnePort(&'static str),
    /// A range, a set or `!=` for a port behind `inner`.
    InnerOnePort(&'static str),
    /// `inner` before both of the funnel's own ports.
    InnerFirst,
    /// `flags` or `inner` behind `unfunnel`.
    NotOfUnfunnel(&'static str),
    /// `flags` behind `funnel udp`.
    FlagsOfUdp,
    /// A word that is no TCP flag, and the flag that it resembles.
    UnknownFlag(String, Option<&'static str>),
    /// Several TCP flags that are not a set.
    FlagsWithoutBraces,
    /// What belongs to a header, with ports in place.
    NoHeader(&'static str),
    /// One of two ports in place.
    InPlacePortMissing(&'static str),
    /// Ports in place, with this protocol in a rule for that one.
    InPlaceProtocol(Verb, Protocol, Protocol),
    /// Ports in place where the rule matches not exactly one range of them.
    InPlaceMatch(&'static str),
    /// Ports in place where the second range is not as long as the first, which is matched.
    InPlaceSize(&'static str, PortRange, PortRange),
    /// Two rules in place make one flow of two. The first stands in this line.
    Collision(usize),
    /// `dnat` with ports in place, for more destinations than one.
    InPlaceDnat,
    /// Anything but one address behind `dnat`.
    DnatOneAddress,
    /// A port with the address behind `dnat`.
    DnatPort,
    /// An address behind `dnat` that no host has.
    DnatNoHost(IpAddr),
    /// What belongs before `dnat`.
    BehindDnat(&'static str),
    /// Two actions that exclude each other.
    Contradiction(&'static str, &'static str),
    /// An action a second time.
    ActionTwice(&'static str),
    /// `dnat` before the action that it belongs behind.
    DnatFirst(&'static str),
    /// Everything that the rule matches is taken by earlier ones.
    Shadowed,
    /// A match that no packet satisfies.
    NeverMatches,
    /// Ports translated back, whoever the packet is from.
    Strangers,
    /// Ports in place come out among those that are matched.
    OwnPorts(&'static str),
}

const ACTIONS_ARE: &str = "actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`";
const RULE_IS: &str = "a rule is `<matches> actions <action>`, \
    such as `ip tcp dport 80 sport 540 actions unfunnel tcp`";
const SHORTER: &str = "sets and ranges make one rule of many: `dport { 443, 8000-8999 }`";

impl Kind {
    /// Whether it refuses the ruleset.
    pub const fn level(&self) -> Level {
        match self {
            Self::Shadowed | Self::NeverMatches | Self::Strangers | Self::OwnPorts(_) => {
                Level::Warning
            }
            _ => Level::Error,
        }
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> String {
        match self {
            Self::Empty => "the ruleset has no rule".into(),
            Self::TooLong(max) => format!("the ruleset is longer than {max} bytes"),
            Self::TooManyRules(max) => format!("the ruleset has more than {max} rules"),
            Self::TooComplex(max, what) => format!("the ruleset needs more than {max} {what}"),
            Self::ControlCharacter(c) => format!("control character U+{:04X}", u32::from(*c)),
            Self::UnexpectedCharacter(c) => {
                format!("unexpected character `{}`", printable(*c))
            }
            Self::UnknownMatch(word, meant) => {
                format!("unknown match `{}`{}", shorten(word), did_you_mean(*meant))
            }
            Self::ValueWithoutMatch(word) => format!("`{}` belongs to no match", shorten(word)),
            Self::ActionsMissingBefore(action) => format!("`actions` is missing before `{action}`"),
            Self::ActionsMissing => "the rule ends without `actions`".into(),
            Self::ActionsTwice => "`actions` is given twice".into(),
            Self::MatchTwice(name) | Self::ActionTwice(name) => format!("`{name}` is given twice"),
            Self::BothProtocols => "`tcp` and `udp` in one rule".into(),
            Self::BothFamilies => "`ip` and `ip6` in one rule".into(),
            Self::PortWithoutProtocol(name) => format!("`{name}` needs `tcp` or `udp`"),
            Self::ProtocolMissing => "the rule names no protocol".into(),
            Self::IpMissing(name, family) => format!("`{name}` needs `{}`", keyword(*family)),
            Self::ValueMissing(name, what) => format!("`{name}` needs {what}"),
            Self::NotAProtocol(word) => format!("`{}` is neither `tcp` nor `udp`", shorten(word)),
            Self::BadPort(word) => format!("`{}` is not a port", shorten(word)),
            Self::PortZero => "port 0 is reserved".into(),
            Self::RangeReversed(first, last) => {
                format!("the range {first}-{last} ends before it starts")
            }
            Self::BadAddress(word, None) => {
                format!("`{}` is not an address or CIDR", shorten(word))
            }
            Self::BadAddress(word, Some(family)) => {
                format!("`{}` is not an {} address or CIDR", shorten(word), name(*family))
            }
            Self::WrongFamily(word, family) => {
                let (own, other) = (name(*family), name(other(*family)));
                format!("`{}` is an {other} address in a rule for {own}", shorten(word))
            }
            Self::BadPrefix(prefix, family) => {
                format!("`/{}` is not an {} prefix length", shorten(prefix), name(*family))
            }
            Self::EmptySet(_) => "the set is empty".into(),
            Self::SetNotClosed => "the set has no `}`".into(),
            Self::CommaMissing => "`,` is missing between two values of a set".into(),
            Self::Misplaced(token) => format!("`{token}` has no place here"),
            Self::ActionMissing => "`actions` without an action".into(),
            Self::UnknownAction(word, meant) => {
                format!("unknown action `{}`{}", shorten(word), did_you_mean(*meant))
            }
            Self::UnknownClause(verb, word, meant) => {
                let (verb, meant) = (verb.name(), did_you_mean(*meant));
                format!("unknown word `{}` behind `{verb}`{meant}", shorten(word))
            }
            Self::MatchAfterActions(name) => format!("`{name}` stands after `actions`"),
            Self::FunnelPortMissing(name) => format!("`funnel` needs `{name}`"),
            Self::FunnelOnePort(name) => {
                format!("`{name}` behind `actions` takes one port, or one range")
            }
            Self::InnerOnePort(name) => format!("`{name}` behind `inner` takes exactly one port"),
            Self::InnerFirst => "`inner` stands before the funnel's own ports".into(),
            Self::NotOfUnfunnel(name) => format!("`{name}` does not belong to `unfunnel`"),
            Self::FlagsOfUdp => "`flags` does not belong to `funnel udp`".into(),
            Self::UnknownFlag(word, meant) => {
                format!("unknown TCP flag `{}`{}", shorten(word), did_you_mean(*meant))
            }
            Self::FlagsWithoutBraces => "several flags without braces".into(),
            Self::NoHeader(word) => {
                format!("`{word}` is for a header, and with a range of ports there is none")
            }
            Self::InPlacePortMissing(name) => {
                format!("ports are translated in place, but `{name}` is missing")
            }
            Self::InPlaceProtocol(verb, protocol, matched) => {
                format!("`{} {protocol}` in place, in a rule for {matched}", verb.name())
            }
            Self::InPlaceMatch(name) => {
                format!(
                    "ports are translated in place, but the rule does not match one range of `{name}`"
                )
            }
            Self::InPlaceSize(name, matched, becomes) => {
                let ports = if matched.size() == 1 { "port" } else { "ports" };
                let (from, to) = (matched.size(), becomes.size());
                format!("{from} {ports} of `{name}` can't become {to}")
            }
            Self::Collision(line) => {
                format!(
                    "two flows would become one: what comes out here also comes out of line {line}"
                )
            }
            Self::InPlaceDnat => "ports are translated in place and the address is set, but the \
                rule does not match one `daddr`"
                .into(),
            Self::DnatOneAddress => "`dnat` takes exactly one address".into(),
            Self::DnatPort => "`dnat` takes no port".into(),
            Self::DnatNoHost(address) => format!("no host has the address `{address}`"),
            Self::BehindDnat(name) => format!("`{name}` stands behind `dnat`"),
            Self::Contradiction(first, second) => format!("`{first}` and `{second}` in one rule"),
            Self::DnatFirst(name) => format!("`dnat` stands before `{name}`"),
            Self::Shadowed => "the rule can never match: earlier rules take all of it".into(),
            Self::NeverMatches => "the rule can never match: its `!=` excludes every packet".into(),
            Self::Strangers => "ports are translated back for packets from anywhere".into(),
            Self::OwnPorts(name) => {
                format!("ports of `{name}` come out among those that the rule matches")
            }
        }
    }

    /// What would be right, in one line.
    pub fn help(&self) -> String {
        match self {
            Self::Empty | Self::ActionsMissing | Self::ActionsMissingBefore(_) => RULE_IS.into(),
            Self::TooLong(_) | Self::TooManyRules(_) => SHORTER.into(),
            Self::TooComplex(..) => "name fewer separate addresses and ports; \
                CIDRs and ranges cost as much as one value"
                .into(),
            Self::ControlCharacter(_) => {
                "remove it; blanks, tabs and line ends separate words".into()
            }
            Self::UnexpectedCharacter('!') => "write `!=` in one piece to negate a match".into(),
            Self::UnexpectedCharacter('=') => {
                "a value follows its match directly, as in `dport 80`".into()
            }
            Self::UnexpectedCharacter('"' | '\'' | '`' | '\u{2018}'..='\u{201F}') => {
                "rules have no quotation marks".into()
            }
            Self::UnexpectedCharacter('$' | '<' | '>' | '*') => {
                "nothing is filled in or expanded here: write the port or the address itself".into()
            }
            Self::UnexpectedCharacter('[' | ']') => {
                "addresses have no brackets here: write `2001:db8::1`".into()
            }
            Self::UnexpectedCharacter('%') => {
                "addresses have no zone here: write `fe80::1` alone".into()
            }
            Self::UnexpectedCharacter('\\') => {
                "no line is continued here: a rule ends at its line's end or at `;`".into()
            }
            Self::UnexpectedCharacter(_) => "outside comments there are only words, numbers, \
                addresses, `!=`, `{`, `,`, `}` and `;`, in plain ASCII"
                .into(),
            Self::UnknownMatch(..) => {
                "matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value \
                `saddr`, `daddr`, `sport`, `dport`; then comes `actions`"
                    .into()
            }
            Self::WrongFamily(_, family) => {
                let (own, other) = (keyword(*family), keyword(other(*family)));
                format!("a rule for `{own}` has no addresses of `{other}`; write a rule for each")
            }
            Self::ValueWithoutMatch(_) => {
                "a port follows `sport` or `dport`, an address `saddr` or `daddr`; \
                 several are written `dport { 80, 443 }` or `dport 1024-2047`"
                    .into()
            }
            Self::ActionsTwice => "one rule a line; `;` separates rules as well".into(),
            Self::MatchTwice(name @ ("sport" | "dport")) => {
                format!("for several values write a set, `{name} {{ 80, 443 }}`")
            }
            Self::MatchTwice(name @ ("saddr" | "daddr")) => {
                format!("for several values write a set, `{name} {{ 10.0.0.1, 10.1.0.0/16 }}`")
            }
            Self::MatchTwice(_) | Self::ActionTwice(_) => {
                "remove one of them, or start a new rule".into()
            }
            Self::BothProtocols | Self::BothFamilies => {
                "no packet is both; write a rule for each".into()
            }
            Self::PortWithoutProtocol(name) => {
                format!("write `tcp {name} ...` or `udp {name} ...`")
            }
            Self::ProtocolMissing => "add `tcp` or `udp`".into(),
            Self::IpMissing(name, family) => format!("write `{} {name} ...`", keyword(*family)),
            Self::ValueMissing(name @ ("saddr" | "daddr" | "dnat"), _) => {
                format!("such as `{name} 10.0.0.1`")
            }
            Self::ValueMissing(name @ ("funnel" | "unfunnel"), _) => {
                format!("such as `{name} tcp`")
            }
            Self::ValueMissing("flags", _) => "such as `flags ack`".into(),
            Self::ValueMissing("inner", _) => "such as `inner sport 2055`".into(),
            Self::ValueMissing(name, _) => format!("such as `{name} 80`"),
            Self::NotAProtocol(_) => {
                "write `funnel tcp` or `unfunnel udp`, in lower case, and ports behind it".into()
            }
            Self::BadPort(_) => {
                "a port is a number from 1 to 65535; a range is written `1024-2047`".into()
            }
            Self::PortZero => "a port is a number from 1 to 65535; \
                a match that is left out holds for every port"
                .into(),
            Self::RangeReversed(first, last) => format!("write `{last}-{first}`"),
            Self::BadAddress(_, Some(Family::Ip6)) => {
                "such as `2001:db8::1` or `2001:db8::/32`".into()
            }
            Self::BadAddress(..) => "such as `10.0.0.1` or `10.0.0.0/8`".into(),
            Self::BadPrefix(_, Family::Ip) => {
                "write a number from 0 to 32, as in `10.0.0.0/8`, or a netmask".into()
            }
            Self::BadPrefix(_, Family::Ip6) => {
                "write a number from 0 to 128, as in `2001:db8::/32`".into()
            }
            Self::EmptySet(name) => format!("name a value, or leave `{name}` out"),
            Self::SetNotClosed => "a set ends in the rule it began in: `{ 80, 443 }`".into(),
            Self::CommaMissing => "write `{ 80, 443 }`".into(),
            Self::Misplaced("!=") => "it follows `saddr`, `daddr`, `sport` or `dport`".into(),
            Self::Misplaced(",") => {
                "a comma separates the values of a set, as in `dport { 80, 443 }`".into()
            }
            Self::Misplaced(_) => "braces hold a set behind a match: `dport { 80, 443 }`".into(),
            Self::ActionMissing | Self::UnknownAction(..) => ACTIONS_ARE.into(),
            Self::UnknownClause(Verb::Funnel, ..) => "behind `funnel tcp` come `dport`, `sport`, \
                `flags` and `inner`, each with its value, and `dnat`"
                .into(),
            Self::UnknownClause(Verb::Unfunnel, ..) => {
                "behind `unfunnel tcp` come `dport` and `sport`, each with its value, and `dnat`"
                    .into()
            }
            Self::MatchAfterActions(_) => "matches come before `actions`".into(),
            Self::FunnelPortMissing(_) => {
                "the new header needs one port each: `funnel tcp dport 80 sport 540`".into()
            }
            Self::FunnelOnePort(_) => {
                "single ports are a header's, `funnel tcp dport 80 sport 540`; \
                ranges translate in place, `funnel tcp dport 80 sport 1024-29255`"
                    .into()
            }
            Self::InnerOnePort(_) => "such as `inner sport 2055`".into(),
            Self::InnerFirst => "write `funnel tcp dport 80 sport 540 inner sport 2055`: \
                ports behind `inner` are those of the packet's own header"
                .into(),
            Self::NotOfUnfunnel("inner") => "the ports of `unfunnel` are the inner ones already: \
                `unfunnel tcp dport 9090`"
                .into(),
            Self::NotOfUnfunnel(_) => {
                "they are those of the header that `funnel tcp` pushes".into()
            }
            Self::FlagsOfUdp => "a UDP header has no flags".into(),
            Self::UnknownFlag(..) => {
                format!("flags are `{}`", crate::ast::TcpFlags::NAMES.join("`, `"))
            }
            Self::FlagsWithoutBraces => "write `flags { syn, ack }`".into(),
            Self::NoHeader(_) => "write one port each, such as `sport 540`, to push or remove a \
                header; a range, even `540-540`, is translated in place"
                .into(),
            Self::InPlacePortMissing(_) => {
                "a range needs both: `funnel tcp dport 80 sport 1024-29255`".into()
            }
            Self::InPlaceProtocol(..) => "a range of ports is translated without a header, so the \
                protocol stays; single ports mean a header, which may be of another one"
                .into(),
            Self::InPlaceMatch(_) => "match one range each, without `!=`: `tcp dport 8080 \
                sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255`"
                .into(),
            Self::InPlaceSize(name, matched, becomes) => {
                let size = becomes.size();
                let wider = resized(*matched, size).map_or_else(
                    || format!("match a range of {size}"),
                    |range| format!("match `{name} {range}`"),
                );
                let right = resized(*becomes, matched.size())
                    .map_or_else(String::new, |range| format!("write `{name} {range}`, or "));
                format!("each port becomes one other: {right}{wider}")
            }
            Self::Collision(_) => "give the two rules source ranges that don't overlap behind \
                `actions`, or addresses that differ"
                .into(),
            Self::InPlaceDnat => "flows to several addresses would become one: match a single \
                address, as in `ip daddr 192.0.2.1`"
                .into(),
            Self::DnatOneAddress => "such as `dnat 10.0.0.1`".into(),
            Self::DnatPort => "write the address alone; ports are set by `funnel` and `unfunnel`, \
                as in `unfunnel tcp dport 9090 dnat 10.0.0.1`"
                .into(),
            Self::DnatNoHost(_) => "name one host, such as `dnat 10.0.0.1`".into(),
            Self::BehindDnat(name) => {
                format!("`dnat` comes last: write `... {name} ... dnat ADDRESS`")
            }
            Self::Contradiction("funnel" | "unfunnel", "funnel" | "unfunnel") => {
                "a rule pushes a header or removes one".into()
            }
            Self::Contradiction(..) => {
                "`accept` and `drop` stand alone; write one action a rule".into()
            }
            Self::DnatFirst(name) => format!("write `{name} ... dnat ADDRESS`"),
            Self::Shadowed => "the first match wins: move the rule up, or remove it".into(),
            Self::NeverMatches => "narrow what `!=` excludes, or remove the rule".into(),
            Self::Strangers => "a stranger with a source port of that range would reach the wrong \
                port; match the `saddr` of clients that are known"
                .into(),
            Self::OwnPorts(_) => "a connection that is not funnelled may have these ports as well, \
                and would be taken for one that is; choose a range outside of the matched one and of \
                net.ipv4.ip_local_port_range, as 1024-29255 is"
                .into(),
        }
    }
}

/// What people call `family`.
const fn name(family: Family) -> &'static str {
    match family {
        Family::Ip => "IPv4",
        Family::Ip6 => "IPv6",
    }
}

const fn other(family: Family) -> Family {
    match family {
        Family::Ip => Family::Ip6,
        Family::Ip6 => Family::Ip,
    }
}

/// `size` ports from the first of `range` on, if there are as many.
fn resized(range: PortRange, size: u16) -> Option<PortRange> {
    let last = range.first.checked_add(size - 1)?;
    Some(PortRange { first: range.first, last })
}

fn did_you_mean(meant: Option<&'static str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

/// Words are quoted whole unless somebody wrote a novel.
fn shorten(word: &str) -> String {
    const LONGEST: usize = 40;
    match word.char_indices().nth(LONGEST) {
        None => word.to_owned(),
        Some((cut, _)) => format!("{}...", &word[..cut]),
    }
}

/// A mistake in a ruleset, with its place. `Display` gives the whole text, without a line's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub kind: Kind,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The rule, or the part of it around the mistake, printable and in one line.
    excerpt: String,
    /// Columns of the excerpt before the mistake.
    indent: usize,
    /// Columns to point at.
    width: usize,
}

impl Diagnostic {
    /// Places `kind` at `span` of `text`.
    pub(crate) fn new(kind: Kind, text: &str, span: Span) -> Self {
        Self::at(kind, &mut Places::new(text), span)
    }

    /// As [`Diagnostic::new`]. Several are placed fastest in their order.
    pub(crate) fn at(kind: Kind, places: &mut Places<'_>, span: Span) -> Self {
        let excerpt = Excerpt::new(places.text, &span);
        let (line, column) = places.find(span.start);
        Self {
            kind,
            line,
            column,
            excerpt: excerpt.text,
            indent: excerpt.indent,
            width: excerpt.width,
        }
    }

    /// Whether it refuses the ruleset.
    pub const fn level(&self) -> Level {
        self.kind.level()
    }

    /// Place and message in one line, for where a line is all there is.
    pub fn summary(&self) -> String {
        format!("line {}, column {}: {}", self.line, self.column, self.kind.message())
    }
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level() {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        writeln!(f, "{level}: {}", self.kind.message())?;
        writeln!(f, "  at line {}, column {}", self.line, self.column)?;
        if !self.excerpt.is_empty() {
            writeln!(f, "  | {}", self.excerpt)?;
            writeln!(
                f,
                "  | {:indent$}{:^<width$}",
                "",
                "",
                indent = self.indent,
                width = self.width
            )?;
        }
        write!(f, "  help: {}", self.kind.help())
    }
}

/// Finds lines and columns. It goes on from the last place, so that places in their order cost one
/// walk through the text and not one each.
pub(crate) struct Places<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    column: usize,
}

impl<'a> Places<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, column: 1 }
    }

    /// Line and column of byte `at`, both counted from 1.
    pub(crate) fn find(&mut self, at: usize) -> (usize, usize) {
        if at < self.at {
            *self = Self::new(self.text);
        }
        for c in self.text[self.at..at].chars() {
            (self.line, self.column) =
                if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.at = at;
        (self.line, self.column)
    }
}

/// The part of a rule that is shown.
struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

impl Excerpt {
    /// Columns shown before and after the start of the mistake, at the most.
    const BEFORE: usize = 60;
    const AFTER: usize = 60;

    fn new(text: &str, span: &Span) -> Self {
        // The rule: from the separator before the mistake to the one behind it.
        let is_end = |c: char| matches!(c, '\n' | ';' | '#');
        let start = text[..span.start].rfind(is_end).map_or(0, |at| at + 1);
        let end = text[span.end..].find(is_end).map_or(text.len(), |at| span.end + at);
        // The mistake itself may be a blank of a kind.
        let end = span.end + text[span.end..end].trim_end().len();

        let head = text[start..span.start].trim_start();
        let mut columns = 0;
        let cut = head.char_indices().rev().find(|&(_, c)| {
            columns += printable(c).len();
            columns > Self::BEFORE
        });
        let mut shown = match cut {
            None => printed(head),
            Some((at, c)) => format!("...{}", printed(&head[at + c.len_utf8()..])),
        };
        let indent = shown.len();

        let tail = &text[span.start..end];
        let mut columns = 0;
        let cut = tail.char_indices().find(|&(_, c)| {
            columns += printable(c).len();
            columns > Self::AFTER
        });
        let pointed = match cut {
            None => {
                shown += &printed(tail);
                printed(&text[span.clone()])
            }
            Some((at, _)) => {
                shown += &printed(&tail[..at]);
                shown += "...";
                printed(&tail[..at.min(span.len())])
            }
        };
        Self { text: shown, indent, width: pointed.len().max(1) }
    }
}

fn printed(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// Nothing that a terminal or a log would act on: one column for each ASCII character, an escape
/// for everything else.
fn printable(c: char) -> String {
    match c {
        '\t' => ' '.into(),
        ' '..='~' => c.into(),
        c => c.escape_default().to_string(),
    }
}
